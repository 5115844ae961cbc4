// Vectors of the instruction set that the file is compiled for, and 2^x on them. Everything lives
// in the namespace of the instruction set and nothing from std:: is used: an inline function that
// two files share would be taken from the wrong one by the linker.
#pragma once

#include <cstdint>

#include "cpu/instruction_set.h"

namespace fastcl::FASTCL_SIMD {

#if defined(FASTCL_VECTOR_BYTES)
constexpr int kBytes = FASTCL_VECTOR_BYTES;
#elif defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <typename T>
struct Lanes;

// Polynomials of least relative error for 2^f, |f| <= 1/2: 1.9e-9 (float) and 3.3e-18 (double).
template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(kBytes)));
  typedef int32_t Integer __attribute__((vector_size(kBytes)));
  using Code = int32_t;
  static constexpr int kMantissa = 23;
  static constexpr int kBias = 127;
  static constexpr float kRound = 0x1.8p23f;  // x + kRound holds round(x) in its low bits
  static constexpr float kPower[] = {1.0f,           0.693147206f,   0.240226469f,   0.0555032883f,
                                     0.00961848448f, 0.00133999082f, 0.000153471709f};
};

template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(kBytes)));
  typedef int64_t Integer __attribute__((vector_size(kBytes)));
  using Code = int64_t;
  static constexpr int kMantissa = 52;
  static constexpr int kBias = 1023;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kPower[] = {1.0,
                                      0.69314718055994533,
                                      0.240226506959101561,
                                      0.0555041086648199455,
                                      0.00961812910758838896,
                                      0.00133335581467840812,
                                      0.000154035304624446933,
                                      0.0000152527334957699491,
                                      1.32154331259439391e-6,
                                      1.01781955327170937e-7,
                                      7.07409910768229089e-9,
                                      4.43567038620262608e-10};
};

template <typename T>
using Vector = typename Lanes<T>::Vector;
template <typename T>
using Integer = typename Lanes<T>::Integer;
template <typename T>
using Code = typename Lanes<T>::Code;
template <typename T>
constexpr int kWidth = kBytes / sizeof(T);
static_assert(cpu::kMostLanes % kWidth<float> == 0, "blocks are whole vectors of every set");

template <typename V, typename T>
inline V load(const T* from) {
  V x;
  __builtin_memcpy(&x, from, sizeof(V));
  return x;
}

template <typename V, typename T>
inline void store(T* to, V x) {
  __builtin_memcpy(to, &x, sizeof(V));
}

template <typename T>
inline T sum(Vector<T> x) {
  T total = 0;
  for (int i = 0; i < kWidth<T>; ++i) total += x[i];
  return total;
}

// Both keep a NaN in x.
template <typename V>
inline V at_least(V x, V low) {
  return low > x ? low : x;
}
template <typename V>
inline V at_most(V x, V high) {
  return high < x ? high : x;
}

// 0, 1, 2, ...
template <typename T>
inline Integer<T> iota() {
  Integer<T> x{};
  for (int i = 0; i < kWidth<T>; ++i) x[i] = i;
  return x;
}

template <typename T>
inline Vector<T> splat(T x) {
  return x - Vector<T>{};  // a broadcast: x + 0 would be an addition, for the sake of -0
}

// 2^f times 2^n, where n arrives as kRound + n and shift is taken off it.
template <typename T>
inline Vector<T> power(Vector<T> f, Vector<T> rounded, Code<T> shift) {
  constexpr int degree = sizeof(Lanes<T>::kPower) / sizeof(T) - 1;
  Vector<T> p = splat<T>(Lanes<T>::kPower[degree]);
#pragma GCC unroll 16
  for (int i = degree - 1; i >= 0; --i) p = p * f + Lanes<T>::kPower[i];
  const Integer<T> exponent = ((Integer<T>)rounded + (Lanes<T>::kBias - shift))
                              << Lanes<T>::kMantissa;
  return p * (Vector<T>)exponent;
}

// 2^(s * high + s * low - shift) for a whole shift: the argument is reduced exactly, so nothing is
// lost to the size of s * high. Below 2^-127 (float) it is 0, above 2^128 infinite.
template <typename T>
struct Exponential {
  T high, low, least, most;
  Code<T> shift;

  Exponential(T high, T low, T shift, bool finite)
      : high(high),
        low(low),
        least((shift - Lanes<T>::kBias) / high),
        most((shift + Lanes<T>::kBias + (finite ? 0 : 1)) / high),
        shift(static_cast<Code<T>>(shift)) {}

  Vector<T> operator()(Vector<T> s) const {
    s = at_most(at_least(s, splat<T>(least)), splat<T>(most));
    const Vector<T> rounded = s * high + Lanes<T>::kRound;
    const Vector<T> f = s * high - (rounded - Lanes<T>::kRound) + s * low;
    return power<T>(f, rounded, shift);
  }
};

// 2^x for any x.
template <typename T>
inline Vector<T> exp2(Vector<T> x) {
  constexpr T bias = Lanes<T>::kBias;
  x = at_most(at_least(x, splat<T>(-bias)), splat<T>(bias + 1));
  const Vector<T> rounded = x + Lanes<T>::kRound;
  return power<T>(x - (rounded - Lanes<T>::kRound), rounded, 0);
}

}  // namespace fastcl::FASTCL_SIMD
