// Squares of numbers turned inside every 16 bytes of vectors, between rows in memory and vectors
// whose lanes are rows. A square is kSide x kSide; 16 bytes number l belong to rows from l * kSide.
#pragma once

#include "cpu/simd/random_views_arithmetic.h"

namespace fastcl::FASTCL_SIMD {

template <typename A>
constexpr int kSide = 16 / sizeof(typename A::Element);
constexpr int kSquares = kViewBytes / 16;

// Elements of a and b in turn, of the lower or the upper half of every 16 bytes.
#if defined(__x86_64__)
inline Words zip_low(Words a, Words b) { return FASTCL_WORDS(unpacklo_epi16, a, b); }
inline Words zip_high(Words a, Words b) { return FASTCL_WORDS(unpackhi_epi16, a, b); }
inline Floats zip_low(Floats a, Floats b) { return (Floats)FASTCL_WORDS(unpacklo_epi32, a, b); }
inline Floats zip_high(Floats a, Floats b) { return (Floats)FASTCL_WORDS(unpackhi_epi32, a, b); }
#else
inline Words zip_low(Words a, Words b) {
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
inline Words zip_high(Words a, Words b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
inline Floats zip_low(Floats a, Floats b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
inline Floats zip_high(Floats a, Floats b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#endif

// The sums of the products of every two numbers, with signs, that follow each other; and of two
// vectors of 32 bits the upper 16 each, what zip_low and zip_high took apart in order again.
#if defined(__x86_64__)
inline Doubles pair_sums(Words a, Words b) { return (Doubles)FASTCL_WORDS(madd_epi16, a, b); }
inline Words joined(Doubles low, Doubles high) {
  return FASTCL_WORDS(packs_epi32, (Integers)low >> 16, (Integers)high >> 16);
}
#else
inline Doubles pair_sums(Words a, Words b) {
  const Integers x = (Integers)a, y = (Integers)b;
  return (Doubles)((x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16));
}
inline Words joined(Doubles low, Doubles high) {
  return __builtin_shufflevector((Words)low, (Words)high, 1, 3, 5, 7, 9, 11, 13, 15);
}
#endif

// Every step moves one bit of the number of a row to the number of the column.
template <typename A>
inline void turn(typename A::Vector* x) {
  constexpr int kHalf = kSide<A> / 2;
#pragma GCC unroll 3
  for (int step = 1; step < kSide<A>; step *= 2) {
    typename A::Vector y[kSide<A>];
#pragma GCC unroll 4
    for (int i = 0; i < kHalf; ++i) {
      y[2 * i] = zip_low(x[i], x[i + kHalf]);
      y[2 * i + 1] = zip_high(x[i], x[i + kHalf]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kSide<A>; ++i) x[i] = y[i];
  }
}

// 16 bytes from each of kSquares places, so many elements apart.
template <typename A>
inline typename A::Vector load_apart(const typename A::Element* from,
                                     [[maybe_unused]] int64_t apart) {
#if defined(__AVX512BW__)
  const auto part = [&](int l) { return _mm_loadu_si128((const __m128i*)(from + l * apart)); };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(part(0)), part(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(part(2)), part(3), 1);
  return (typename A::Vector)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#elif defined(__AVX2__)
  const auto part = [&](int l) { return _mm_loadu_si128((const __m128i*)(from + l * apart)); };
  return (typename A::Vector)_mm256_inserti128_si256(_mm256_castsi128_si256(part(0)), part(1), 1);
#else
  return load<typename A::Vector>(from);
#endif
}

// 16 bytes number l of a vector.
template <typename V>
inline auto square(V x, [[maybe_unused]] int l) {
#if defined(__AVX512BW__)
  switch (l) {
    case 1:
      return _mm512_extracti32x4_epi32((__m512i)x, 1);
    case 2:
      return _mm512_extracti32x4_epi32((__m512i)x, 2);
    case 3:
      return _mm512_extracti32x4_epi32((__m512i)x, 3);
    default:
      return _mm512_castsi512_si128((__m512i)x);
  }
#elif defined(__AVX2__)
  return l == 0 ? _mm256_castsi256_si128((__m256i)x) : _mm256_extracti128_si256((__m256i)x, 1);
#else
  return x;
#endif
}

}  // namespace fastcl::FASTCL_SIMD
