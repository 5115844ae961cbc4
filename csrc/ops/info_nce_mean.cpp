// info_nce_mean: tensors to pointers. Schema, fake kernel and composite fallback are in
// fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

using Mean = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Mean info_nce_mean(Tensor q, Tensor k, double scale, OptionalTensor logit_scale,
                   OptionalTensor row_ids, OptionalTensor col_ids, OptionalTensor extra, bool unit,
                   bool normalize, bool need_q, bool need_k, bool both) {
  InfoNce x = problem(q, k, scale, logit_scale, row_ids, col_ids, false, true, unit || normalize);
  const ScalarType type = accumulator(q);
  Tensor loss = torch::stable::new_empty(q, {}, type);
  Tensor rows = torch::stable::new_empty(q, {4, x.n}, type);
  Tensor dq = torch::stable::new_empty(q, {need_q ? x.n : 0, x.d}, type);
  Tensor dk = torch::stable::new_empty(q, {need_k ? x.m : 0, x.d}, type);
  Tensor dot = torch::stable::new_empty(q, {}, type);
  with_accumulator(q, [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> q_lengths, k_lengths;
    if (normalize) {
      q_lengths.resize(x.n);
      k_lengths.resize(x.m);
      cpu::row_lengths<T>(x.dtype, x.q, x.d, q_lengths.data());
      cpu::row_lengths<T>(x.dtype, x.k, x.d, k_lengths.data());
      x.q_lengths = q_lengths.data();
      x.k_lengths = k_lengths.data();
    }
    const std::vector<T> extras = values<T>(extra, x.n, "extra");
    std::vector<T> cols(both ? 4 * x.m : 0);
    double mean = 0, product = 0;
    cpu::info_nce_mean<T>({x, extra.has_value() ? extras.data() : nullptr,
                           mutable_data<T>(rows, "rows"), both ? cols.data() : nullptr,
                           need_q ? mutable_data<T>(dq, "dq") : nullptr,
                           need_k ? mutable_data<T>(dk, "dk") : nullptr, &mean, &product});
    *mutable_data<T>(loss, "loss") = static_cast<T>(mean);
    *mutable_data<T>(dot, "dot") = static_cast<T>(product);
  });
  return {loss, rows, dq, dk, dot};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { m.impl("info_nce_mean", TORCH_BOX(&info_nce_mean)); }

}  // namespace fastcl
