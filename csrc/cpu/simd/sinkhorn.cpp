// Rows of the passes of sinkhorn, compiled once per instruction set. One read of the scores and one
// exponential per score in every pass: the assignment's row sums and its column sums come of the
// same exponentials, while the row is in the first-level cache.
#include "../../sinkhorn.h"

#include "cpu/simd/row.h"

namespace fastcl {
namespace FASTCL_SIMD {
namespace {

// Row i of the scores, or of the older ones behind them.
template <typename E>
const E* row_of(const Sinkhorn& x, int64_t i) {
  return i < x.n ? static_cast<const E*>(x.scores) + i * x.m
                 : static_cast<const E*>(x.older) + (i - x.n) * x.m;
}

// The running maximum of every column and the sum below it: of exp(s - most) and exp(most - s) one
// is one, so one exponential serves both cases.
template <typename T>
void fold(const T* row, int64_t m, T* most, T* sums) {
  using V = Vector<T>;
  for (int64_t j = 0; j < m; j += kWidth<T>) {
    const V s = load<V>(row + j), high = load<V>(most + j), sum = load<V>(sums + j);
    const V gap = s == high ? V{} : s - high;  // also for two infinite ones
    const V e = exp2<T>((gap > 0 ? -gap : gap) * kLog2E<T>);
    store(sums + j, gap > 0 ? sum * e + T(1) : sum + e);
    store(most + j, gap > 0 ? s : high);
  }
}

template <typename T, typename E>
void rows(const Sinkhorn& x, int64_t begin, int64_t end, T* most, T* sums, T* row) {
  const T* potential = static_cast<const T*>(x.potential);
  for (int64_t i = begin; i < end; ++i) {
    logits(row_of<E>(x, i), potential, x.m, static_cast<T>(x.scale), row);
    if (most != nullptr) {
      fold(row, x.m, most, sums);
      continue;
    }
    const T inverse = 1 / exponentials(row, x.m, largest(row, x.m));
    if (sums != nullptr) {
      for (int64_t j = 0; j < x.m; ++j) sums[j] += row[j] * inverse;
    } else {
      T* out = static_cast<T*>(x.out) + i * x.m;
      for (int64_t j = 0; j < x.m; ++j) out[j] = row[j] * inverse;
    }
  }
}

template <typename T, typename E>
void rows_of(const Sinkhorn& x, int64_t begin, int64_t end, void* most, void* sums, void* row) {
  rows<T, E>(x, begin, end, static_cast<T*>(most), static_cast<T*>(sums), static_cast<T*>(row));
}

}  // namespace

void sinkhorn_rows(const Sinkhorn& x, int64_t begin, int64_t end, void* most, void* sums,
                   void* row);

void sinkhorn_rows(const Sinkhorn& x, int64_t begin, int64_t end, void* most, void* sums,
                   void* row) {
  switch (x.dtype) {
    case Dtype::kFloat16:
      return rows_of<float, Half>(x, begin, end, most, sums, row);
    case Dtype::kBFloat16:
      return rows_of<float, BFloat16>(x, begin, end, most, sums, row);
    case Dtype::kFloat64:
      return rows_of<double, double>(x, begin, end, most, sums, row);
    default:
      return rows_of<float, float>(x, begin, end, most, sums, row);
  }
}

}  // namespace FASTCL_SIMD
}  // namespace fastcl
