// nested_contrast_mean: tensors to pointers. Schema, fake kernel and fallback are in
// fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

void check_widths(const std::vector<int64_t>& widths, const std::vector<double>& weights,
                  int64_t d) {
  check(!widths.empty(), "fastcl: the nested contrast needs a width");
  check(widths.size() == weights.size(), "fastcl: weights must be as many as widths, ",
        widths.size(), ", got ", weights.size());
  int64_t last = 0;
  for (const int64_t width : widths) {
    check(width > last && width <= d, "fastcl: widths must rise from 1 to ", d, ", got ", width);
    last = width;
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> nested_contrast_mean(
    Tensor q, Tensor k, OptionalTensor logit_scale, double scale, std::vector<int64_t> widths,
    std::vector<double> weights, bool need_q, bool need_k, bool need_scale) {
  check_matrix(q, "q");
  check_matrix(k, "k");
  const int64_t n = q.size(0), d = q.size(1);
  check(k.size(0) == n && k.size(1) == d && k.scalar_type() == q.scalar_type(),
        "fastcl: k must have the shape and dtype of q");
  check(n > 0 && d > 0, "fastcl: the contrast needs rows, got [", n, ", ", d, "]");
  check_widths(widths, weights, d);
  const Dtype dtype = rows_dtype(q);
  const ScalarType type = accumulator(q);
  Tensor loss = empty(q, {}, type);
  Tensor dq = empty(q, {need_q ? n : 0, d}, type);
  Tensor dk = empty(q, {need_k ? n : 0, d}, type);
  Tensor slope = empty(q, {need_scale ? 1 : 0}, type);
  with_accumulator(q, [&](auto zero) {
    using T = decltype(zero);
    double mean = 0, found = 0;
    cpu::nested_contrast_mean<T>(
        {dtype, data<char>(q, "q"), data<char>(k, "k"), n, d, widths, weights,
         whole_scale(scale, logit_scale), &mean, need_q ? mutable_data<T>(dq, "dq") : nullptr,
         need_k ? mutable_data<T>(dk, "dk") : nullptr, need_scale ? &found : nullptr});
    *mutable_data<T>(loss, "loss") = static_cast<T>(mean);
    if (need_scale) *mutable_data<T>(slope, "slope") = static_cast<T>(found);
  });
  return {loss, dq, dk, slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("nested_contrast_mean", TORCH_BOX(&nested_contrast_mean));
}

}  // namespace fastcl
