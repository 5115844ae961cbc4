// One row of scores on its way to a softmax, as the first-level cache holds it.
#pragma once

#include "cpu/float16.h"
#include "cpu/simd/vector.h"

namespace fastcl::FASTCL_SIMD {

template <typename T>
constexpr T kLog2E = T(1.4426950408889634);

// Logits of a row, in whole vectors; minus infinity behind its end. potential [m] may be null.
template <typename T, typename E>
void logits(const E* scores, const T* potential, int64_t m, T scale, T* row) {
  if (potential == nullptr) {
    for (int64_t j = 0; j < m; ++j) row[j] = static_cast<T>(widen(scores[j])) * scale;
  } else {
    for (int64_t j = 0; j < m; ++j) {
      row[j] = static_cast<T>(widen(scores[j])) * scale + potential[j];
    }
  }
  for (int64_t j = m; j % kWidth<T> != 0; ++j) row[j] = -__builtin_inf();
}

// The largest of whole vectors; passes over a NaN.
template <typename T>
T largest(const T* row, int64_t m) {
  using V = Vector<T>;
  V highest = splat<T>(-__builtin_inf());
  for (int64_t j = 0; j < m; j += kWidth<T>) {
    const V s = load<V>(row + j);
    highest = s > highest ? s : highest;
  }
  T high = highest[0];
  for (int l = 1; l < kWidth<T>; ++l) high = highest[l] > high ? highest[l] : high;
  return high;
}

// The row becomes exp(s - high); their sum.
template <typename T>
T exponentials(T* row, int64_t m, T high) {
  using V = Vector<T>;
  V total{};
  for (int64_t j = 0; j < m; j += kWidth<T>) {
    const V e = exp2<T>((load<V>(row + j) - high) * kLog2E<T>);
    total += e;
    store(row + j, e);
  }
  return sum<T>(total);
}

}  // namespace fastcl::FASTCL_SIMD
