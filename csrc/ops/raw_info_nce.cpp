// raw_info_nce: the contrast of rows as they come, divided by their length on the way into the
// products, so that no unit rows are stored. Tensors to pointers; schema and composite fallback are
// in fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> raw_info_nce_forward(
    std::vector<Tensor> q, std::vector<Tensor> k, double scale, OptionalTensor logit_scale,
    OptionalTensor row_ids, OptionalTensor col_ids, bool both, bool positives_in) {
  InfoNce x = raw_problem(q, k, scale, logit_scale, row_ids, col_ids, positives_in);
  const ScalarType type = accumulator(q[0]);
  Tensor rows = torch::stable::new_empty(q[0], {4, x.n}, type);
  Tensor cols = torch::stable::new_empty(q[0], {4, both ? x.m : 0}, type);
  Tensor q_lengths = torch::stable::new_empty(q[0], {x.n}, type);
  Tensor k_lengths = torch::stable::new_empty(q[0], {x.symmetric ? 0 : x.m}, type);
  with_accumulator(q[0], [&](auto zero) {
    using T = decltype(zero);
    T* lengths = mutable_data<T>(q_lengths, "lengths");
    cpu::row_lengths<T>(x.dtype, x.q, x.d, lengths);
    x.q_lengths = x.k_lengths = lengths;
    if (!x.symmetric) {
      lengths = mutable_data<T>(k_lengths, "lengths");
      cpu::row_lengths<T>(x.dtype, x.k, x.d, lengths);
      x.k_lengths = lengths;
    }
    cpu::info_nce_forward<T>({x, nullptr, nullptr, mutable_data<T>(rows, "rows"),
                              both ? mutable_data<T>(cols, "cols") : nullptr, nullptr, nullptr});
  });
  return {rows, cols, q_lengths, k_lengths};
}

std::tuple<Tensor, Tensor, Tensor> raw_info_nce_backward(
    OptionalTensor grad_loss, OptionalTensor grad_col_loss, std::vector<Tensor> q,
    std::vector<Tensor> k, Tensor q_lengths, Tensor k_lengths, double scale,
    OptionalTensor logit_scale, OptionalTensor row_ids, OptionalTensor col_ids, Tensor rows,
    Tensor cols, bool positives_in, bool need_q, bool need_k) {
  InfoNce x = raw_problem(q, k, scale, logit_scale, row_ids, col_ids, positives_in);
  const ScalarType type = accumulator(q[0]);
  check_vector(rows, 4 * x.n, type, "rows");
  if (grad_loss.has_value()) check_vector(*grad_loss, x.n, type, "grad_loss");
  if (grad_col_loss.has_value()) {
    check_vector(*grad_col_loss, x.m, type, "grad_col_loss");
    check_vector(cols, 4 * x.m, type, "cols");
  }
  check_vector(q_lengths, x.n, type, "q_lengths");
  check_vector(k_lengths, x.symmetric ? 0 : x.m, type, "k_lengths");
  const bool need_dq = need_q || x.symmetric, need_dk = need_k && !x.symmetric;
  Tensor dq = torch::stable::new_empty(q[0], {need_dq ? x.n : 0, x.d}, type);
  Tensor dk = torch::stable::new_empty(q[0], {need_dk ? x.m : 0, x.d}, type);
  Tensor dot = torch::stable::new_empty(q[0], {}, type);
  with_accumulator(q[0], [&](auto zero) {
    using T = decltype(zero);
    x.q_lengths = data<T>(q_lengths, "q_lengths");
    x.k_lengths = x.symmetric ? x.q_lengths : data<T>(k_lengths, "k_lengths");
    double total = 0;
    cpu::info_nce_backward<T>({x, data<T>(grad_loss, "grad_loss"), nullptr,
                               data<T>(grad_col_loss, "grad_col_loss"), nullptr,
                               data<T>(rows, "rows"), data<T>(cols, "cols"), false,
                               need_dq ? mutable_data<T>(dq, "dq") : nullptr,
                               need_dk ? mutable_data<T>(dk, "dk") : nullptr, &total});
    *mutable_data<T>(dot, "dot") = static_cast<T>(total);
  });
  return {dq, dk, dot};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("raw_info_nce_forward", TORCH_BOX(&raw_info_nce_forward));
  m.impl("raw_info_nce_backward", TORCH_BOX(&raw_info_nce_backward));
}

}  // namespace fastcl
