// The softmax contrast on the CPU: which passes serve which problem, and what they have in common:
// the lengths that rows are divided by, and the one positive that is no column,
//     extra_i = <q_i, own_i>,   dq_i += pull_i own_i,   d_own_i = pull_i q_i,
//     pull_i = scale (grad_loss_i (p_i - 1) + grad_positive_i).
// The mean comes with its gradients: in one and a half products where one side of the diagonal is
// kept, in three where chunks of rows are (contrast_triangle.cpp, contrast_chunks.cpp), in two for
// constant columns, else in a forward and a backward of four.
#include <algorithm>

#include "cpu/prepared.h"
#include "cpu/weights.h"

namespace fastcl::cpu {
namespace {

template <typename T>
void in_passes(const Divided<T>& x, T* rows, T* cols, T* dq, T* dk) {
  const bool finishes = x.finishes(dq != nullptr, dk != nullptr);
  forward<T>(x, nullptr, rows, cols, nullptr, finishes ? dq : nullptr);
  if (dq == nullptr && dk == nullptr) return;
  Buffer<T> grad(x.n);
  for (int64_t i = 0; i < x.n; ++i) grad[i] = static_cast<T>(upstream_of_row(x, rows, i));
  if (finishes) {
    for (int64_t i = 0; i < x.n; ++i) {
      const T factor = static_cast<T>(x.scale * grad[i]);
      for (int64_t c = 0; c < x.d; ++c) dq[i * x.d + c] *= factor;
    }
    return;
  }
  Buffer<T> col_grad(x.both ? x.m : 0);
  for (int64_t j = 0; x.both && j < x.m; ++j) {
    col_grad[j] = static_cast<T>(upstream_of_column(x, cols, j));
  }
  const ContrastBackward<T> given{
      x,       rows, cols, nullptr, grad.data(), nullptr, x.both ? col_grad.data() : nullptr,
      nullptr, {}};
  backward<T>(x, given, dq, dk);
}

}  // namespace

template <typename T>
void contrast_forward(const ContrastForward<T>& x) {
  const Prepared<T> prepared(x.problem);
  forward<T>(prepared.problem(), x.pivot, x.rows, x.cols, x.rank, x.weighted);
}

template <typename T>
void contrast_backward(const ContrastBackward<T>& x) {
  Prepared<T> prepared(x.problem);
  const Divided<T>& problem = prepared.problem();
  if (x.weighted != nullptr) {
    for (int64_t i = 0; x.to.dq != nullptr && i < problem.n * problem.d; ++i) {
      const T grad = x.grad_loss != nullptr ? x.grad_loss[i / problem.d] : T(0);
      x.to.dq[i] = static_cast<T>(problem.scale * grad) * x.weighted[i];
    }
  } else {
    backward<T>(problem, x, x.to.dq, x.to.dk);
  }
  prepared.finish(
      [&](int64_t i) {  // p - 1 of the positive, without cancellation
        const double g = x.grad_loss != nullptr ? x.grad_loss[i] : 0;
        return g * std::expm1(-double{x.rows[i]}) +
               (x.grad_positive != nullptr ? x.grad_positive[i] : 0);
      },
      x.to);
}

template <typename T>
void contrast_mean(const ContrastMean<T>& x) {
  Prepared<T> prepared(x.problem);
  const Divided<T>& problem = prepared.problem();
  const int64_t n = problem.n, m = problem.m;
  T *const dq = x.to.dq, *const dk = x.to.dk;
  const Buffer<T> rows(4 * n), cols(problem.both ? 4 * m : 0);
  T* const to_cols = problem.both ? cols.data() : nullptr;
  const bool either = dq != nullptr || dk != nullptr;
  const bool kept = either && !problem.finishes(dq != nullptr, dk != nullptr);
  if (problem.symmetric && kept && triangle_serves(problem)) {
    in_triangle(problem, rows.data(), dq);
  } else if (!problem.symmetric && kept && chunks_serve(problem)) {
    in_chunks(problem, rows.data(), to_cols, dq, dk);
  } else {
    in_passes(problem, rows.data(), to_cols, dq, dk);
  }
  for (int64_t i = 0; i < n; ++i) {
    x.losses[i] = problem.paired || rows[3 * n + i] != 0 ? rows[i] : T(0);
  }
  // What has weight zero takes no part, whatever its loss.
  const auto part = [](double weight, T loss) { return weight == 0 ? 0 : weight * loss; };
  *x.loss = sum_of(
      0, n, [&](int64_t i) { return part(upstream_of_row(problem, rows.data(), i), rows[i]); });
  if (problem.both) {
    *x.loss += sum_of(0, m, [&](int64_t j) {
      return part(upstream_of_column(problem, cols.data(), j), cols[j]);
    });
  }
  prepared.finish(
      [&](int64_t i) {
        return upstream_of_row(problem, rows.data(), i) * std::expm1(-double{rows.data()[i]});
      },
      x.to);
}

#define FASTCL_INSTANCE(T)                                     \
  template void contrast_forward(const ContrastForward<T>&);   \
  template void contrast_backward(const ContrastBackward<T>&); \
  template void contrast_mean(const ContrastMean<T>&);
FASTCL_INSTANCE(float)
FASTCL_INSTANCE(double)
#undef FASTCL_INSTANCE

}  // namespace fastcl::cpu
