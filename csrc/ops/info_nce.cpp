// info_nce: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Forward info_nce_forward(Tensor q, Tensor k, double scale, OptionalTensor logit_scale,
                         OptionalTensor row_ids, OptionalTensor col_ids, OptionalTensor extra,
                         OptionalTensor pivot, bool symmetric, bool both, bool positives_in,
                         bool unit, bool frozen) {
  const InfoNce x =
      problem(q, k, scale, logit_scale, row_ids, col_ids, symmetric, positives_in, unit);
  const ScalarType type = accumulator(q);
  Tensor rows = torch::stable::new_empty(q, {4, x.n}, type);
  Tensor cols = torch::stable::new_empty(q, {4, both ? x.m : 0}, type);
  Tensor rank = torch::stable::new_empty(q, {pivot.has_value() ? x.n : 0}, ScalarType::Long);
  Tensor weighted = torch::stable::new_empty(q, {frozen ? x.n : 0, x.d}, type);
  with_accumulator(q, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> extras = values<T>(extra, x.n, "extra");
    const std::vector<T> pivots = values<T>(pivot, x.n, "pivot");
    cpu::info_nce_forward<T>({x, extra.has_value() ? extras.data() : nullptr,
                              pivot.has_value() ? pivots.data() : nullptr,
                              mutable_data<T>(rows, "rows"),
                              both ? mutable_data<T>(cols, "cols") : nullptr,
                              pivot.has_value() ? mutable_data<int64_t>(rank, "rank") : nullptr,
                              frozen ? mutable_data<T>(weighted, "weighted") : nullptr});
  });
  return {rows, cols, rank, weighted};
}

std::tuple<Tensor, Tensor> info_nce_backward(
    OptionalTensor grad_loss, OptionalTensor grad_positive, OptionalTensor grad_col_loss,
    OptionalTensor grad_col_positive, Tensor q, Tensor k, double scale, OptionalTensor logit_scale,
    OptionalTensor row_ids, OptionalTensor col_ids, Tensor rows, Tensor cols, bool symmetric,
    bool positives_in, bool extra, bool unit, bool need_q, bool need_k) {
  const InfoNce x =
      problem(q, k, scale, logit_scale, row_ids, col_ids, symmetric, positives_in, unit);
  const ScalarType type = accumulator(q);
  const bool columns = grad_col_loss.has_value() || grad_col_positive.has_value();
  check(rows.numel() == 4 * x.n && rows.scalar_type() == type && cols.scalar_type() == type &&
            cols.numel() == (columns ? 4 * x.m : cols.numel()),
        "fastcl: rows and cols must be what the forward returned");
  const bool need_dq = need_q || symmetric, need_dk = need_k && !symmetric;
  Tensor dq = torch::stable::new_empty(q, {need_dq ? x.n : 0, x.d}, type);
  Tensor dk = torch::stable::new_empty(q, {need_dk ? x.m : 0, x.d}, type);
  with_accumulator(q, [&](auto zero) {
    using T = decltype(zero);
    const auto gradient = [&](const OptionalTensor& g, int64_t size, const char* name) {
      if (g.has_value()) check_vector(*g, size, type, name);
      return data<T>(g, name);
    };
    cpu::info_nce_backward<T>(
        {x, gradient(grad_loss, x.n, "grad_loss"), gradient(grad_positive, x.n, "grad_positive"),
         gradient(grad_col_loss, x.m, "grad_col_loss"),
         gradient(grad_col_positive, x.m, "grad_col_positive"), data<T>(rows, "rows"),
         data<T>(cols, "cols"), extra, need_dq ? mutable_data<T>(dq, "dq") : nullptr,
         need_dk ? mutable_data<T>(dk, "dk") : nullptr, nullptr});
  });
  return {dq, dk};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("info_nce_forward", TORCH_BOX(&info_nce_forward));
  m.impl("info_nce_backward", TORCH_BOX(&info_nce_backward));
}

}  // namespace fastcl
