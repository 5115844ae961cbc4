// Square blocks in registers, turned.
#pragma once

#include <utility>

#include "cpu/simd/vector.h"

namespace fastcl::FASTCL_SIMD {

// Lanes of a, then of b, by their numbers.
template <typename T, int... kLanes>
inline Vector<T> pick(Vector<T> a, Vector<T> b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, kLanes...);
#else  // gcc before 12
  return __builtin_shuffle(a, b, Integer<T>{kLanes...});
#endif
}

// Exchanges the blocks of kApart x kApart off the diagonal of rows a and b, kApart apart.
template <typename T, int kApart, int... l>
inline void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, l...>) {
  constexpr int kLanes = kWidth<T>;
  const Vector<T> first = pick<T, ((l & kApart) != 0 ? kLanes + l - kApart : l)...>(a, b);
  b = pick<T, ((l & kApart) != 0 ? kLanes + l : l + kApart)...>(a, b);
  a = first;
}

// Rows become columns, one bit of their numbers after the other.
template <typename T, int kApart = kWidth<T> / 2>
inline void transpose(Vector<T>* rows) {
#pragma GCC unroll 16
  for (int l = 0; l < kWidth<T>; ++l) {
    if ((l & kApart) == 0) {
      exchange<T, kApart>(rows[l], rows[l + kApart], std::make_integer_sequence<int, kWidth<T>>{});
    }
  }
  if constexpr (kApart > 1) transpose<T, kApart / 2>(rows);
}

}  // namespace fastcl::FASTCL_SIMD
