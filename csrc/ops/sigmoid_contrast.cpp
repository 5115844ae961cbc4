// sigmoid_contrast: tensors to pointers. Schema, fake kernel and fallback are in
// fastcl/_library.py.
#include <tuple>

#include "ops/problem.h"

namespace fastcl {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> sigmoid_contrast(const Given& given, double bias,
                                                            OptionalTensor logit_bias, bool need_q,
                                                            bool need_k) {
  const Problem& x = given.problem;
  check(!x.symmetric, "fastcl: the sigmoid contrast needs columns");
  check(!x.has_own(), "fastcl: the sigmoid contrast knows no positive of each row's own");
  check_columns(x);
  if (logit_bias.has_value()) bias += values<double>(*logit_bias, 1, "logit_bias")[0];
  const ScalarType type = accumulator(given.like);
  Tensor loss = empty(given.like, {}, type);
  Tensor dq = empty(given.like, {need_q ? x.n : 0, x.d}, type);
  Tensor dk = empty(given.like, {need_k ? x.m : 0, x.d}, type);
  Tensor sums = empty(given.like, {2}, type);
  with_accumulator(given.like, [&](auto zero) {
    using T = decltype(zero);
    double found[3];
    cpu::sigmoid_contrast<T>({x, bias, need_q ? mutable_data<T>(dq, "dq") : nullptr,
                              need_k ? mutable_data<T>(dk, "dk") : nullptr, found});
    const bool needed = need_q || need_k;
    *mutable_data<T>(loss, "loss") = static_cast<T>(found[0]);
    mutable_data<T>(sums, "sums")[0] = static_cast<T>(needed ? found[1] : 0);
    mutable_data<T>(sums, "sums")[1] = static_cast<T>(needed ? found[2] : 0);
  });
  return {loss, dq, dk, sums};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("sigmoid_contrast", TORCH_BOX(&OnProblem<sigmoid_contrast>::call));
}

}  // namespace fastcl
