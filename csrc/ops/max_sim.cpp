// max_sim_mean: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include <tuple>

#include "ops/problem.h"

namespace fastcl {
namespace {

// Items of tokens and where there are any; dims: of x, the last of them the width.
Tokens tokens(const Tensor& x, const OptionalTensor& mask, const Tensor& like, int64_t dims,
              const char* name) {
  check(x.dim() == dims, "fastcl: ", name, " must have ", dims, " dimensions, got ", x.dim());
  check(x.size(dims - 1) == like.size(2) && x.scalar_type() == like.scalar_type(), "fastcl: ", name,
        " must have the width and dtype of query");
  check(x.numel() > 0, "fastcl: ", name, " must not be empty");
  const int64_t length = x.size(dims - 2), items = x.numel() / (length * like.size(2));
  if (mask.has_value()) {
    check(mask->scalar_type() == ScalarType::Bool, "fastcl: a mask must be bool");
    bool same = mask->dim() == dims - 1;
    for (int64_t i = 0; same && i < dims - 1; ++i) same = mask->size(i) == x.size(i);
    check(same, "fastcl: the mask of ", name, " must have the shape of its tokens");
  }
  return {data<char>(x, name), data<bool>(mask, "a mask"), items, length};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> max_sim_mean(
    Tensor query, Tensor document, OptionalTensor hard, OptionalTensor query_mask,
    OptionalTensor document_mask, OptionalTensor hard_mask, OptionalTensor logit_scale,
    double scale, bool normalize, bool need_q, bool need_d, bool need_hard, bool need_scale) {
  check(query.dim() == 3, "fastcl: query must have 3 dimensions, got ", query.dim());
  const Dtype dtype = rows_dtype(query);
  const int64_t n = query.size(0), d = query.size(2);
  const Tokens q = tokens(query, query_mask, query, 3, "query");
  const Tokens k = tokens(document, document_mask, query, 3, "document");
  check(k.items >= n, "fastcl: document must have as many items as query or more");
  Tokens others{nullptr, nullptr, 0, 0};
  if (hard.has_value()) {
    others = tokens(*hard, hard_mask, query, 4, "hard");
    check(hard->size(0) == n, "fastcl: hard must have as many items as query");
  }
  const ScalarType type = accumulator(query);
  const auto like = [&](bool need, const Tokens& x) {
    return torch::stable::new_empty(query, {need ? x.items : 0, x.length, d}, type);
  };
  Tensor loss = torch::stable::new_empty(query, {}, type);
  Tensor dq = like(need_q, q), dd = like(need_d, k);
  const int64_t number = hard.has_value() ? hard->size(1) : 0;
  Tensor d_hard = torch::stable::new_empty(
      query, {need_hard && hard.has_value() ? n : 0, number, others.length, d}, type);
  Tensor slope = torch::stable::new_empty(query, {need_scale ? 1 : 0}, type);
  with_accumulator(query, [&](auto zero) {
    using T = decltype(zero);
    double mean = 0, found = 0;
    const auto to = [](bool need, Tensor& x, const char* name) {
      return need ? mutable_data<T>(x, name) : nullptr;
    };
    cpu::max_sim_mean<T>({dtype, q, k, others, d, whole_scale(scale, logit_scale), normalize, &mean,
                          to(need_q, dq, "dq"), to(need_d, dd, "dd"),
                          to(need_hard && hard.has_value(), d_hard, "d_hard"),
                          need_scale ? &found : nullptr});
    *mutable_data<T>(loss, "loss") = static_cast<T>(mean);
    if (need_scale) *mutable_data<T>(slope, "slope") = static_cast<T>(found);
  });
  return {loss, dq, dd, d_hard, slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { m.impl("max_sim_mean", TORCH_BOX(&max_sim_mean)); }

}  // namespace fastcl
