// Rows of sinkhorn with its exponentials kept, compiled once per instruction set. With
//     E_ij = exp(s_ij - max_j s_ij),   q_ij = E_ij u_j / r_i,   r_i = sum_j E_ij u_j
// a round is one read of E: the row sums r and the next column sums, a_j = sum_i E_ij / r_i, of
// which the next u_j is one over. Four rows at a time, so that u and a are read once for four.
#include "../../sinkhorn.h"
#include "cpu/simd/row.h"

namespace fastcl {
namespace FASTCL_SIMD {
namespace {

constexpr int64_t kRows = 4;

// Row i of two matrices below each other: x of n rows and older.
template <typename E>
E* row_of(E* x, E* older, int64_t n, int64_t m, int64_t i) {
  return i < n ? x + i * m : older + (i - n) * m;
}

// Writes E, and adds exp(max_j s_ij - top) E_ij to sums [padded], top being the largest logit yet.
template <typename T, typename E>
void powers(const Sinkhorn& x, int64_t begin, int64_t end, T* older, T* sums, T* top, T* row) {
  using V = Vector<T>;
  const int64_t m = x.m;
  for (int64_t i = begin; i < end; ++i) {
    const E* scores =
        row_of(static_cast<const E*>(x.scores), static_cast<const E*>(x.older), x.n, m, i);
    logits<T, E>(scores, nullptr, m, static_cast<T>(x.scale), row);
    const T high = largest(row, m);
    if (high > *top) {
      const T factor = static_cast<T>(__builtin_exp(*top - high));
      for (int64_t j = 0; j < m; ++j) sums[j] *= factor;
      *top = high;
    }
    const T weight = static_cast<T>(__builtin_exp(high - *top));
    T* to = row_of(static_cast<T*>(x.out), older, x.n, m, i);
    for (int64_t j = 0; j < m; j += kWidth<T>) {
      const V e = exp2<T>((load<V>(row + j) - high) * kLog2E<T>);
      store(sums + j, load<V>(sums + j) + e * weight);
      if (j + kWidth<T> <= m) {
        store(to + j, e);
      } else {
        for (int64_t l = 0; j + l < m; ++l) to[j + l] = e[l];
      }
    }
  }
}

// One over the row sums of R rows.
template <typename T, int64_t R>
void inverses(T* const* rows, const T* factors, int64_t m, T* inverse) {
  using V = Vector<T>;
  V totals[R] = {};
  T rest[R] = {};
  int64_t j = 0;
  for (; j + kWidth<T> <= m; j += kWidth<T>) {
    const V u = load<V>(factors + j);
    for (int64_t k = 0; k < R; ++k) totals[k] += load<V>(rows[k] + j) * u;
  }
  for (; j < m; ++j) {
    for (int64_t k = 0; k < R; ++k) rest[k] += rows[k][j] * factors[j];
  }
  for (int64_t k = 0; k < R; ++k) inverse[k] = 1 / (sum<T>(totals[k]) + rest[k]);
}

// Adds the rows over their sums to sums; or, without sums, makes them the assignment.
template <typename T, int64_t R>
void scale(T* const* rows, const T* factors, int64_t m, T* sums) {
  using V = Vector<T>;
  T inverse[R];
  inverses<T, R>(rows, factors, m, inverse);
  if (sums == nullptr) {
    for (int64_t k = 0; k < R; ++k) {
      for (int64_t j = 0; j < m; ++j) rows[k][j] *= factors[j] * inverse[k];
    }
    return;
  }
  int64_t j = 0;
  for (; j + kWidth<T> <= m; j += kWidth<T>) {
    V a = load<V>(sums + j);
    for (int64_t k = 0; k < R; ++k) a += load<V>(rows[k] + j) * inverse[k];
    store(sums + j, a);
  }
  for (; j < m; ++j) {
    for (int64_t k = 0; k < R; ++k) sums[j] += rows[k][j] * inverse[k];
  }
}

template <typename T>
void scale_rows(const Sinkhorn& x, int64_t begin, int64_t end, T* older, const T* factors,
                T* sums) {
  const auto row = [&](int64_t i) { return row_of(static_cast<T*>(x.out), older, x.n, x.m, i); };
  int64_t i = begin;
  for (; i + kRows <= end; i += kRows) {
    T* const rows[kRows] = {row(i), row(i + 1), row(i + 2), row(i + 3)};
    scale<T, kRows>(rows, factors, x.m, sums);
  }
  for (; i < end; ++i) {
    T* const rows[1] = {row(i)};
    scale<T, 1>(rows, factors, x.m, sums);
  }
}

template <typename T, typename E>
void powers_of(const Sinkhorn& x, int64_t begin, int64_t end, void* older, void* sums, void* top,
               void* row) {
  powers<T, E>(x, begin, end, static_cast<T*>(older), static_cast<T*>(sums), static_cast<T*>(top),
               static_cast<T*>(row));
}

}  // namespace

void sinkhorn_powers(const Sinkhorn& x, int64_t begin, int64_t end, void* older, void* sums,
                     void* top, void* row);
void sinkhorn_scale(const Sinkhorn& x, int64_t begin, int64_t end, void* older, const void* factors,
                    void* sums);

void sinkhorn_powers(const Sinkhorn& x, int64_t begin, int64_t end, void* older, void* sums,
                     void* top, void* row) {
  switch (x.dtype) {
    case Dtype::kFloat16:
      return powers_of<float, Half>(x, begin, end, older, sums, top, row);
    case Dtype::kBFloat16:
      return powers_of<float, BFloat16>(x, begin, end, older, sums, top, row);
    case Dtype::kFloat64:
      return powers_of<double, double>(x, begin, end, older, sums, top, row);
    default:
      return powers_of<float, float>(x, begin, end, older, sums, top, row);
  }
}

void sinkhorn_scale(const Sinkhorn& x, int64_t begin, int64_t end, void* older, const void* factors,
                    void* sums) {
  if (x.dtype == Dtype::kFloat64) {
    return scale_rows(x, begin, end, static_cast<double*>(older),
                      static_cast<const double*>(factors), static_cast<double*>(sums));
  }
  scale_rows(x, begin, end, static_cast<float*>(older), static_cast<const float*>(factors),
             static_cast<float*>(sums));
}

}  // namespace FASTCL_SIMD
}  // namespace fastcl
