// sigmoid_contrast: tensors to pointers. Schema, fake kernel and fallback are in
// fastcl/_library.py.
#include <tuple>

#include "ops/problem.h"

namespace fastcl {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> sigmoid_contrast(Tensor q, Tensor k, double scale,
                                                            OptionalTensor logit_scale, double bias,
                                                            OptionalTensor logit_bias,
                                                            OptionalTensor row_ids,
                                                            OptionalTensor col_ids, bool need_q,
                                                            bool need_k) {
  const InfoNce x = problem(q, k, scale, logit_scale, row_ids, col_ids, false, true, true);
  if (logit_bias.has_value()) bias += values<double>(*logit_bias, 1, "logit_bias")[0];
  const ScalarType type = accumulator(q);
  Tensor loss = torch::stable::new_empty(q, {}, type);
  Tensor dq = torch::stable::new_empty(q, {need_q ? x.n : 0, x.d}, type);
  Tensor dk = torch::stable::new_empty(q, {need_k ? x.m : 0, x.d}, type);
  Tensor sums = torch::stable::new_empty(q, {2}, type);
  with_accumulator(q, [&](auto zero) {
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
  m.impl("sigmoid_contrast", TORCH_BOX(&sigmoid_contrast));
}

}  // namespace fastcl
