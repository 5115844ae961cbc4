// info_nce: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include <tuple>
#include <vector>

#include "kernels.h"
#include "tensor.h"

namespace fastcl {
namespace {

// What both directions take, checked as far as reading it is safe.
InfoNce problem(const Tensor& q, const Tensor& k, double scale, const OptionalTensor& logit_scale,
                const OptionalTensor& row_ids, const OptionalTensor& col_ids, bool symmetric,
                bool positives_in, bool unit) {
  STD_TORCH_CHECK(
      q.dim() == 2 && k.dim() == 2 && q.size(1) == k.size(1) && q.scalar_type() == k.scalar_type(),
      "fastcl: q and k must be matrices of one width and dtype");
  STD_TORCH_CHECK(!symmetric || q.size(0) == k.size(0), "fastcl: k must be q where symmetric");
  STD_TORCH_CHECK(row_ids.has_value() == col_ids.has_value(),
                  "fastcl: ids of the rows need ids of the columns");
  if (row_ids.has_value()) {
    check_vector(*row_ids, q.size(0), ScalarType::Long, "row_ids");
    check_vector(*col_ids, k.size(0), ScalarType::Long, "col_ids");
  }
  if (logit_scale.has_value()) scale *= values<double>(*logit_scale, 1, "logit_scale")[0];
  STD_TORCH_CHECK(!(scale <= 0), "fastcl: the scale must be above 0, got ", scale);
  return {element_of(q),
          checked(q, "q").data_ptr(),
          checked(k, "k").data_ptr(),
          q.size(0),
          k.size(0),
          q.size(1),
          scale,
          data<int64_t>(row_ids, "row_ids"),
          data<int64_t>(col_ids, "col_ids"),
          symmetric,
          positives_in,
          unit};
}

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
  STD_TORCH_CHECK(rows.numel() == 4 * x.n && rows.scalar_type() == type &&
                      cols.scalar_type() == type &&
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
         need_dk ? mutable_data<T>(dk, "dk") : nullptr});
  });
  return {dq, dk};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("info_nce_forward", TORCH_BOX(&info_nce_forward));
  m.impl("info_nce_backward", TORCH_BOX(&info_nce_backward));
}

}  // namespace fastcl
