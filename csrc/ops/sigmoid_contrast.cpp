// sigmoid_contrast: tensors to pointers. Schema, fake kernel and fallback are in
// fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

using Contrast = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Of rows q and k, or, where raw, of their unit rows: the gradients are then those of q and k.
Contrast compute(const Tensor& q, InfoNce x, double bias, const OptionalTensor& logit_bias,
                 bool need_q, bool need_k, bool raw) {
  if (logit_bias.has_value()) bias += values<double>(*logit_bias, 1, "logit_bias")[0];
  const ScalarType type = accumulator(q);
  Tensor loss = torch::stable::new_empty(q, {}, type);
  Tensor dq = torch::stable::new_empty(q, {need_q ? x.n : 0, x.d}, type);
  Tensor dk = torch::stable::new_empty(q, {need_k ? x.m : 0, x.d}, type);
  Tensor sums = torch::stable::new_empty(q, {2}, type);
  with_accumulator(q, [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> q_lengths, k_lengths;
    if (raw) {
      q_lengths.resize(x.n);
      k_lengths.resize(x.m);
      cpu::row_lengths<T>(x.dtype, x.q, x.d, q_lengths.data());
      cpu::row_lengths<T>(x.dtype, x.k, x.d, k_lengths.data());
      x.q_lengths = q_lengths.data();
      x.k_lengths = k_lengths.data();
    }
    double found[3];
    T* to_q = need_q ? mutable_data<T>(dq, "dq") : nullptr;
    T* to_k = need_k ? mutable_data<T>(dk, "dk") : nullptr;
    cpu::sigmoid_contrast<T>({x, bias, to_q, to_k, found});
    if (raw && need_q) cpu::project<T>(x.dtype, x.q, q_lengths.data(), x.d, to_q);
    if (raw && need_k) cpu::project<T>(x.dtype, x.k, k_lengths.data(), x.d, to_k);
    const bool needed = need_q || need_k;
    *mutable_data<T>(loss, "loss") = static_cast<T>(found[0]);
    mutable_data<T>(sums, "sums")[0] = static_cast<T>(needed ? found[1] : 0);
    mutable_data<T>(sums, "sums")[1] = static_cast<T>(needed ? found[2] : 0);
  });
  return {loss, dq, dk, sums};
}

Contrast sigmoid_contrast(Tensor q, Tensor k, double scale, OptionalTensor logit_scale, double bias,
                          OptionalTensor logit_bias, OptionalTensor row_ids, OptionalTensor col_ids,
                          bool need_q, bool need_k, bool positives_in) {
  const InfoNce x = problem(q, k, scale, logit_scale, row_ids, col_ids, false, positives_in, true);
  return compute(q, x, bias, logit_bias, need_q, need_k, false);
}

Contrast raw_sigmoid_contrast(Tensor q, Tensor k, double scale, OptionalTensor logit_scale,
                              double bias, OptionalTensor logit_bias, OptionalTensor row_ids,
                              OptionalTensor col_ids, bool need_q, bool need_k, bool positives_in) {
  const InfoNce x = raw_problem({q}, {k}, scale, logit_scale, row_ids, col_ids, positives_in);
  return compute(q, x, bias, logit_bias, need_q, need_k, true);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("sigmoid_contrast", TORCH_BOX(&sigmoid_contrast));
  m.impl("raw_sigmoid_contrast", TORCH_BOX(&raw_sigmoid_contrast));
}

}  // namespace fastcl
