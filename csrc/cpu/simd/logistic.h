// log(1 + e) in vectors, for the logistic losses.
#pragma once

#include "cpu/simd/vector.h"

namespace fastcl::FASTCL_SIMD {

// For e in [0, 1], as 2 atanh(e / (2 + e)): relative, also where e is tiny.
template <typename T>
inline Vector<T> log_of_one_plus(Vector<T> e) {
  constexpr int kDegree = sizeof(T) == 4 ? 7 : 16;  // 9^-degree is below one rounding
  const Vector<T> z = e / (e + T(2)), square = z * z;
  Vector<T> p = splat<T>(T(1) / (2 * kDegree + 1));
#pragma GCC unroll 16
  for (int i = kDegree - 1; i >= 0; --i) p = p * square + T(1) / (2 * i + 1);
  return (z + z) * p;
}

}  // namespace fastcl::FASTCL_SIMD
