// Rows of nce (Wu et al. 2018, equations 4 to 7), compiled once per instruction set:
//     t_j = scale <x, bank[index_j]> + bias + offset[index_j]
//     loss = log(1 + exp(-t_0)) + sum_{j > 0} log(1 + exp(t_j)),   dx = sum_j g_j scale
//     bank[index_j]
// The rows of the bank are read where they lie, in blocks that are still in the first-level cache
// when the gradient takes them up: one read of memory for loss and gradient.
#include "../../nce.h"

#include "cpu/float16.h"
#include "cpu/simd/logistic.h"

namespace fastcl {
namespace FASTCL_SIMD {
namespace {

constexpr int64_t kBlock = 32;  // 16 KB of float rows of width 128
static_assert(kBlock % kWidth<float> == 0);
constexpr int64_t kAhead = 8;  // rows that are on their way while one is multiplied
constexpr int64_t kLine = 64;
constexpr int64_t kSums = 16;

template <typename E>
void prefetch(const E* row, int64_t d) {
  const char* at = reinterpret_cast<const char*>(row);
  const int64_t bytes = d * static_cast<int64_t>(sizeof(E));
  for (int64_t i = 0; i < bytes && i < 16 * kLine; i += kLine) __builtin_prefetch(at + i);
}

// Sixteen sums side by side, which is what vectors want.
template <typename T, typename E>
T product(const E* row, const T* x, int64_t d) {
  T sums[kSums] = {};
  int64_t j = 0;
  for (; j + kSums <= d; j += kSums) {
    for (int64_t l = 0; l < kSums; ++l) sums[l] += static_cast<T>(widen(row[j + l])) * x[j + l];
  }
  for (int64_t l = 0; j + l < d; ++l) sums[l] += static_cast<T>(widen(row[j + l])) * x[j + l];
  for (int64_t half = kSums / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  }
  return sums[0];
}

// Sum of log(1 + exp(t)) over a block; t becomes the derivative.
template <typename T>
double logistic(T* t) {
  using V = Vector<T>;
  constexpr T log2e = T(1.4426950408889634);
  V losses{};
  for (int64_t j = 0; j < kBlock; j += kWidth<T>) {
    const V x = load<V>(t + j);
    const V e = exp2<T>((x > 0 ? -x : x) * log2e);
    const V zero = x * T(0);  // NaN where x is not finite: no finite loss comes of it
    losses += at_least(x, splat<T>(0)) + log_of_one_plus<T>(e) + zero;
    store(t + j, (x > 0 ? splat<T>(1) : e) / (e + T(1)) + zero);
  }
  double total = 0;
  for (int l = 0; l < kWidth<T>; ++l) total += losses[l];
  return total;
}

// Logits of a block, the positive's with the other sign. Behind its end such that no sum notices.
template <typename T, typename E>
void logits(const Nce& p, const int64_t* index, int64_t count, bool first, const T* x, T* t) {
  const E* bank = static_cast<const E*>(p.bank);
  const T* offset = static_cast<const T*>(p.offset);
  for (int64_t j = 0; j < count; ++j) {
    if (j + kAhead < count) prefetch(bank + index[j + kAhead] * p.d, p.d);
    double logit =
        static_cast<double>(product<T>(bank + index[j] * p.d, x, p.d)) * p.scale + p.bias;
    if (offset != nullptr) logit += static_cast<double>(offset[index[j]]);
    t[j] = static_cast<T>(first && j == 0 ? -logit : logit);
  }
  for (int64_t j = count; j < kBlock; ++j) t[j] = T(-1e6);
}

template <typename T, typename E>
void one_row(const Nce& p, int64_t i, const T* x, T* part) {
  const E* bank = static_cast<const E*>(p.bank);
  const int64_t* index = p.index + i * p.columns;
  T* dx = p.dx == nullptr ? nullptr : static_cast<T*>(p.dx) + i * p.d;
  for (int64_t l = 0; dx != nullptr && l < p.d; ++l) dx[l] = 0;
  double loss = 0;
  alignas(kBytes) T t[kBlock];
  for (int64_t begin = 0; begin < p.columns; begin += kBlock, index += kBlock) {
    const int64_t count = p.columns - begin < kBlock ? p.columns - begin : kBlock;
    logits<T, E>(p, index, count, begin == 0, x, t);
    loss += logistic(t);
    if (dx == nullptr) continue;
    // A sum per block: thousands of noise rows would add up more rounding in one.
    for (int64_t l = 0; l < p.d; ++l) part[l] = 0;
    for (int64_t j = 0; j < count; ++j) {
      const T g = static_cast<T>((begin + j == 0 ? -p.scale : p.scale) * static_cast<double>(t[j]));
      const E* row = bank + index[j] * p.d;
      for (int64_t l = 0; l < p.d; ++l) part[l] += g * static_cast<T>(widen(row[l]));
    }
    for (int64_t l = 0; l < p.d; ++l) dx[l] += part[l];
  }
  static_cast<T*>(p.loss)[i] = static_cast<T>(loss);
}

template <typename T, typename X, typename E>
void rows(const Nce& p, int64_t begin, int64_t end, T* scratch) {
  for (int64_t i = begin; i < end; ++i) {
    const X* x = static_cast<const X*>(p.x) + i * p.d;
    for (int64_t l = 0; l < p.d; ++l) scratch[l] = static_cast<T>(widen(x[l]));
    one_row<T, E>(p, i, scratch, scratch + p.d);
  }
}

template <typename T, typename X>
void rows_of(const Nce& p, int64_t begin, int64_t end, void* scratch) {
  T* space = static_cast<T*>(scratch);
  switch (p.bank_dtype) {
    case Dtype::kFloat16:
      return rows<T, X, Half>(p, begin, end, space);
    case Dtype::kBFloat16:
      return rows<T, X, BFloat16>(p, begin, end, space);
    case Dtype::kFloat64:
      return rows<T, X, double>(p, begin, end, space);
    default:
      return rows<T, X, float>(p, begin, end, space);
  }
}

}  // namespace

void nce_rows(const Nce& p, int64_t begin, int64_t end, void* scratch);

void nce_rows(const Nce& p, int64_t begin, int64_t end, void* scratch) {
  switch (p.x_dtype) {
    case Dtype::kFloat16:
      return rows_of<float, Half>(p, begin, end, scratch);
    case Dtype::kBFloat16:
      return rows_of<float, BFloat16>(p, begin, end, scratch);
    case Dtype::kFloat64:
      return rows_of<double, double>(p, begin, end, scratch);
    default:
      return rows_of<float, float>(p, begin, end, scratch);
  }
}

}  // namespace FASTCL_SIMD
}  // namespace fastcl
