// The numbers of random views in vectors: 16 bits for 8-bit images, float for all others. Every
// operation is the same to the last bit in every instruction set.
#pragma once

#if defined(__x86_64__)
#pragma GCC diagnostic push
#if !defined(__clang__)
// gcc 12 takes its own undefined vectors for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "cpu/simd/vector.h"

namespace fastcl::FASTCL_SIMD {

#if defined(__AVX512BW__)
constexpr int kViewBytes = 64;
#elif defined(__AVX2__)
constexpr int kViewBytes = 32;
#else
constexpr int kViewBytes = 16;
#endif

typedef uint8_t Bytes __attribute__((vector_size(kViewBytes)));
typedef uint16_t Words __attribute__((vector_size(kViewBytes)));
typedef int16_t SignedWords __attribute__((vector_size(kViewBytes)));
typedef uint32_t Doubles __attribute__((vector_size(kViewBytes)));
typedef float Floats __attribute__((vector_size(kViewBytes)));
typedef int32_t Integers __attribute__((vector_size(kViewBytes)));

// FASTCL_WORDS(name, a, b): the instruction of that name on two vectors of 16-bit numbers.
#if defined(__AVX512BW__)
#define FASTCL_WORDS(name, a, b) ((Words)_mm512_##name((__m512i)(a), (__m512i)(b)))
#elif defined(__AVX2__)
#define FASTCL_WORDS(name, a, b) ((Words)_mm256_##name((__m256i)(a), (__m256i)(b)))
#elif defined(__x86_64__)
#define FASTCL_WORDS(name, a, b) ((Words)_mm_##name((__m128i)(a), (__m128i)(b)))
#endif

#if defined(__x86_64__)
// The upper half of the product.
inline Words high_product(Words a, Words b) { return FASTCL_WORDS(mulhi_epu16, a, b); }
// a - b, or 0.
inline Words above(Words a, Words b) { return FASTCL_WORDS(subs_epu16, a, b); }
// Of numbers below 2^15.
inline Words least(Words a, Words b) { return FASTCL_WORDS(min_epi16, a, b); }
inline Words most(Words a, Words b) { return FASTCL_WORDS(max_epi16, a, b); }
#else
inline Words high_product(Words a, Words b) {
  typedef uint32_t Wide __attribute__((vector_size(2 * kViewBytes)));
  const Wide product = __builtin_convertvector(a, Wide) * __builtin_convertvector(b, Wide);
  return __builtin_convertvector(product >> 16, Words);
}
inline Words above(Words a, Words b) { return (a - b) & (Words)(a > b); }
inline Words least(Words a, Words b) { return a < b ? a : b; }
inline Words most(Words a, Words b) { return a > b ? a : b; }
#endif

#if defined(__AVX512BW__)
// Loaded once, and not again for every use, as gcc would.
template <typename V>
inline void in_register(V& x) {
  __asm__("" : "+v"(x));
}
// Words of a and b by their numbers.
inline Words picked(Words a, Words at, Words b) {
  return (Words)_mm512_permutex2var_epi16((__m512i)a, (__m512i)at, (__m512i)b);
}
#endif

inline Floats above(Floats a, Floats b) { return at_least(a - b, Floats{}); }
inline Floats least(Floats a, Floats b) { return a < b ? a : b; }
inline Floats most(Floats a, Floats b) { return a > b ? a : b; }

#if defined(__AVX512BW__)
inline void stream(char* to, Floats x) { _mm512_stream_ps((float*)to, (__m512)x); }
#elif defined(__AVX2__)
inline void stream(char* to, Floats x) { _mm256_stream_ps((float*)to, (__m256)x); }
#elif defined(__x86_64__)
inline void stream(char* to, Floats x) { _mm_stream_ps((float*)to, (__m128)x); }
#endif

// As many numbers as floats make a vector. What gcc 12 makes of __builtin_convertvector here are
// instructions for one number each.
inline Floats floats(const float* from) { return load<Floats>(from); }
#if defined(__AVX512BW__)
inline Floats floats(const uint8_t* from) {
  const auto x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(x));
}
inline Floats floats(const uint16_t* from) {
  const auto x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(x));
}
#elif defined(__AVX2__)
inline Floats floats(const uint8_t* from) {
  const auto x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x));
}
inline Floats floats(const uint16_t* from) {
  const auto x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(x));
}
#else
template <typename P>
inline Floats floats(const P* from) {
  Integers x{};
  for (int l = 0; l < kViewBytes / 4; ++l) x[l] = from[l];
  return __builtin_convertvector(x, Floats);
}
#endif

// Products are rounded down, by half a unit on average, which sums begin with; but not those of
// zeros, and black would come out grey. So numbers are larger than they are while they are
// multiplied: rows that have been summed down by kRaised units, bytes by twice that, half a level,
// where there are more than kFewTaps.
constexpr int kRaised = 32;

// A level of 255 is 128 units: values to 32640, whose sums of two fit 16 bits without a sign.
struct Fixed {
  using Element = uint16_t;
  using Vector = Words;
#if defined(__AVX512BW__)
  using Mask = __mmask32;
#else
  using Mask = SignedWords;
#endif
  using Weight = uint32_t;  // a 16-bit number twice: what broadcasts fastest
  static constexpr int kLanes = kViewBytes / 2;
  static constexpr int kSums = 2;  // vectors of a vector of bytes: the even ones, the odd ones
  static constexpr int kOne = 32640;
  static constexpr float kUnit = 1.0f / kOne;

  static Vector splat(Weight x) { return (Words)(x - Doubles{}); }
  static Weight twice(uint32_t x) { return x << 16 | x; }
  // A number from 0 to below 2, for times.
  static Vector factor(float x) { return splat(twice(static_cast<uint32_t>(x * 32768 + 0.5f))); }
  static Vector value(float x) { return splat(twice(static_cast<uint32_t>(x * kOne + 0.5f))); }
  static Vector times(Vector x, Vector factor) { return high_product(x + x, factor); }
  // 0 to 1 in 16 bits.
  static Vector share(Vector x, Vector weight) { return high_product(x, weight); }
  // What was raised for the products, see kRaised.
  static Vector lowered(Vector x) { return above(x, splat(twice(kRaised))); }
  // Sums of two values that are not larger than one, and differences.
  static Vector mixed(Vector a, Vector b) { return a + b; }
  static Vector parted(Vector a, Vector b) { return bounded(above(a, b)); }
  // At most one; a may be twice that.
  static Vector bounded(Vector a) { return a - above(a, value(1)); }
  // The grey of three channels, times two.
  static Vector grey(Vector r, Vector g, Vector b) {
    return high_product(r + r, splat(twice(19589))) + high_product(g + g, splat(twice(38470))) +
           high_product(b + b, splat(twice(7471)));
  }
  static Vector times_grey(Vector grey, Vector factor) { return high_product(grey, factor); }
  static Vector from_grey(Vector grey) { return (grey + 1) >> 1; }
#if defined(__AVX512BW__)
  static Mask at_or_above(Vector a, Vector b) {
    return _mm512_cmpge_epi16_mask((__m512i)a, (__m512i)b);
  }
  static Vector chosen(Mask mask, Vector a, Vector b) {
    return (Vector)_mm512_mask_blend_epi16(mask, (__m512i)b, (__m512i)a);
  }
#else
  static Mask at_or_above(Vector a, Vector b) { return ~(Mask)((Mask)b > (Mask)a); }
  static Vector chosen(Mask mask, Vector a, Vector b) { return b ^ ((Vector)mask & (a ^ b)); }
#endif
};

struct Float {
  using Element = float;
  using Vector = Floats;
  using Mask = Integers;
  using Weight = float;
  static constexpr int kLanes = kViewBytes / 4;
  static constexpr int kSums = 1;
  static constexpr float kOne = 1, kUnit = 1;

  static Vector splat(Weight x) { return x - Floats{}; }
  static Vector factor(float x) { return splat(x); }
  static Vector value(float x) { return splat(x); }
  static Vector times(Vector x, Vector factor) { return x * factor; }
  static Vector share(Vector x, Vector weight) { return x * weight; }
  static Vector lowered(Vector x) { return x; }
  static Vector mixed(Vector a, Vector b) { return bounded(a + b); }
  static Vector parted(Vector a, Vector b) { return bounded(a - b); }
  static Vector bounded(Vector a) { return at_most(at_least(a, Floats{}), splat(1)); }
  static Vector grey(Vector r, Vector g, Vector b) { return r * 0.2989f + g * 0.587f + b * 0.114f; }
  static Vector times_grey(Vector grey, Vector factor) { return grey * factor; }
  static Vector from_grey(Vector grey) { return grey; }
  static Mask at_or_above(Vector a, Vector b) { return a >= b; }
  static Vector chosen(Mask mask, Vector a, Vector b) { return mask ? a : b; }
};

}  // namespace fastcl::FASTCL_SIMD
