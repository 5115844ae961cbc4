// Square blocks in registers, turned.
#pragma once

#include "cpu/simd/vector.h"

namespace fastcl::FASTCL_SIMD {

// Exchanges the blocks of kApart x kApart off the diagonal of rows a and b, kApart apart.
template <typename T, int kApart>
inline void exchange(Vector<T>& a, Vector<T>& b) {
  Integer<T> upper{}, lower{};
  for (int l = 0; l < kWidth<T>; ++l) {
    const bool from_b = (l & kApart) != 0;
    upper[l] = from_b ? kWidth<T> + l - kApart : l;
    lower[l] = from_b ? kWidth<T> + l : l + kApart;
  }
  const Vector<T> first = __builtin_shuffle(a, b, upper);
  b = __builtin_shuffle(a, b, lower);
  a = first;
}

// Rows become columns, one bit of their numbers after the other.
template <typename T, int kApart = kWidth<T> / 2>
inline void transpose(Vector<T>* rows) {
#pragma GCC unroll 16
  for (int l = 0; l < kWidth<T>; ++l) {
    if ((l & kApart) == 0) exchange<T, kApart>(rows[l], rows[l + kApart]);
  }
  if constexpr (kApart > 1) transpose<T, kApart / 2>(rows);
}

}  // namespace fastcl::FASTCL_SIMD
