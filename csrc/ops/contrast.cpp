// The softmax contrast: tensors to pointers. Schema, fake kernel and fallback are in
// fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Six = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// A matrix [size, d] where it is needed, else [0, d]; in the dtype that the rows accumulate in.
Tensor matrix(const Given& given, int64_t size, bool needed) {
  return empty(given.like, {needed ? size : 0, given.problem.d}, accumulator(given.like));
}

template <typename T>
T* where(bool needed, Tensor& x) {
  return needed ? mutable_data<T>(x, "a gradient") : nullptr;
}

Four contrast_forward(const Given& given, OptionalTensor pivot, bool need_q, bool need_k) {
  const Problem& x = given.problem;
  const ScalarType type = accumulator(given.like);
  const bool finishes = x.finishes(need_q, need_k);
  check_columns(x);
  Tensor rows = empty(given.like, {4, x.n}, type);
  Tensor cols = empty(given.like, {4, x.both ? x.m : 0}, type);
  Tensor rank = empty(given.like, {pivot.has_value() ? x.n : 0}, ScalarType::Long);
  Tensor weighted = matrix(given, x.n, finishes);
  with_accumulator(given.like, [&](auto zero) {
    using T = decltype(zero);
    const std::vector<T> pivots = values<T>(pivot, x.n, "pivot");
    cpu::contrast_forward<T>({x, pivot.has_value() ? pivots.data() : nullptr,
                              mutable_data<T>(rows, "rows"), where<T>(x.both, cols),
                              pivot.has_value() ? mutable_data<int64_t>(rank, "rank") : nullptr,
                              where<T>(finishes, weighted)});
  });
  return {rows, cols, rank, weighted};
}

Four contrast_backward(const Given& given, Tensor rows, Tensor cols, Tensor weighted,
                       OptionalTensor grad_loss, OptionalTensor grad_positive,
                       OptionalTensor grad_col_loss, OptionalTensor grad_col_positive, bool need_q,
                       bool need_k, bool need_own, bool need_scale) {
  const Problem& x = given.problem;
  const ScalarType type = accumulator(given.like);
  const bool columns = grad_col_loss.has_value() || grad_col_positive.has_value();
  const bool finished = weighted.numel() > 0;
  check_vector(rows, 4 * x.n, type, "statistics of the rows");
  if (columns) check_vector(cols, 4 * x.m, type, "statistics of the columns");
  if (finished) check_vector(weighted, x.n * x.d, type, "weighted");
  if (!finished) check_columns(x);
  check(!need_own || x.has_own(), "fastcl: own has no gradient where there is none");
  need_q = need_q || x.symmetric;
  need_k = need_k && !x.symmetric;
  check(need_q || !need_scale, "fastcl: the gradient of the scale takes that of the rows");
  Tensor dq = matrix(given, x.n, need_q), dk = matrix(given, x.m, need_k);
  Tensor d_own = matrix(given, x.n, need_own);
  Tensor slope = empty(given.like, {need_scale ? 1 : 0}, type);
  with_accumulator(given.like, [&](auto zero) {
    using T = decltype(zero);
    const auto gradient = [&](const OptionalTensor& g, int64_t size, const char* name) {
      if (g.has_value()) check_vector(*g, size, type, name);
      return data<T>(g, name);
    };
    double found = 0;
    cpu::contrast_backward<T>({x,
                               data<T>(rows, "rows"),
                               columns ? data<T>(cols, "cols") : nullptr,
                               finished ? data<T>(weighted, "weighted") : nullptr,
                               gradient(grad_loss, x.n, "grad_loss"),
                               gradient(grad_positive, x.n, "grad_positive"),
                               gradient(grad_col_loss, x.m, "grad_col_loss"),
                               gradient(grad_col_positive, x.m, "grad_col_positive"),
                               {where<T>(need_q, dq), where<T>(need_k, dk),
                                where<T>(need_own, d_own), need_scale ? &found : nullptr}});
    if (need_scale) *mutable_data<T>(slope, "slope") = static_cast<T>(found);
  });
  return {dq, dk, d_own, slope};
}

Six contrast_mean(const Given& given, bool need_q, bool need_k, bool need_own, bool need_scale) {
  const Problem& x = given.problem;
  const ScalarType type = accumulator(given.like);
  check_columns(x);
  check(!need_own || x.has_own(), "fastcl: own has no gradient where there is none");
  check(need_q || !need_scale, "fastcl: the gradient of the scale takes that of the rows");
  need_k = need_k && !x.symmetric;
  Tensor loss = empty(given.like, {}, type);
  Tensor losses = empty(given.like, {x.n}, type);
  Tensor dq = matrix(given, x.n, need_q), dk = matrix(given, x.m, need_k);
  Tensor d_own = matrix(given, x.n, need_own);
  Tensor slope = empty(given.like, {need_scale ? 1 : 0}, type);
  with_accumulator(given.like, [&](auto zero) {
    using T = decltype(zero);
    double mean = 0, found = 0;
    cpu::contrast_mean<T>({x,
                           mutable_data<T>(losses, "losses"),
                           &mean,
                           {where<T>(need_q, dq), where<T>(need_k, dk), where<T>(need_own, d_own),
                            need_scale ? &found : nullptr}});
    *mutable_data<T>(loss, "loss") = static_cast<T>(mean);
    if (need_scale) *mutable_data<T>(slope, "slope") = static_cast<T>(found);
  });
  return {loss, losses, dq, dk, d_own, slope};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("contrast_forward", TORCH_BOX(&OnProblem<contrast_forward>::call));
  m.impl("contrast_backward", TORCH_BOX(&OnProblem<contrast_backward>::call));
  m.impl("contrast_mean", TORCH_BOX(&OnProblem<contrast_mean>::call));
}

}  // namespace fastcl
