// The end of a view: pixels inverted, normalised and written. The blur goes straight into it.
#pragma once

#include "cpu/float16.h"
#include "cpu/simd/random_views_arithmetic.h"

namespace fastcl::FASTCL_SIMD {

// Where the pixels of a view go, and how.
struct Target {
  Dtype dtype;
  char* out;
  int64_t channels, plane;  // plane: pixels of a view
  bool channels_last;
  const float* mean;       // [channels]
  const float* deviation;  // [channels]
  float threshold, unit;   // unit: share of full scale that one is
  bool streamed;           // past the caches, as nobody reads what is written while it is in one

  float factor(int64_t c) const { return unit / deviation[c]; }
  float offset(int64_t c) const { return -mean[c] / deviation[c]; }
};

constexpr int64_t kBuffer = 768;

// Past the caches where whole vectors can be.
inline void stream(char* to, const char* from, int64_t bytes) {
#if defined(__x86_64__)
  if (reinterpret_cast<uintptr_t>(to) % kViewBytes == 0 && bytes % kViewBytes == 0) {
    for (int64_t i = 0; i < bytes; i += kViewBytes) stream(to + i, load<Floats>(from + i));
    return;
  }
#endif
  __builtin_memcpy(to, from, bytes);
}

// A level that equals the threshold is at or above it, whatever the rounding of their quotient.
template <typename A>
void solarise(float threshold, typename A::Element* pixels, int64_t count) {
  if (threshold > 1) return;
  using E = typename A::Element;
  using V = typename A::Vector;
  const float units = threshold * A::kOne;
  const E from = sizeof(E) == 4 ? static_cast<E>(units) : static_cast<E>(units + 0.99f);
  const V least = from - V{}, one = A::value(1);
  const auto turned = [&](V x) {
    return A::chosen(A::at_or_above(x, least), sizeof(E) == 2 ? above(one, x) : one - x, x);
  };
  int64_t i = 0;
  for (; i + A::kLanes <= count; i += A::kLanes) store(pixels + i, turned(load<V>(pixels + i)));
  V rest{};
  __builtin_memcpy(&rest, pixels + i, (count - i) * sizeof(E));
  rest = turned(rest);
  __builtin_memcpy(pixels + i, &rest, (count - i) * sizeof(E));
}

// How many of `count` numbers were written by whole vectors, where that takes other instructions
// than the compiler finds.
template <typename E, typename T>
int64_t write_vectors(const E*, int64_t, float, float, T*) {
  return 0;
}

#if defined(__AVX512BW__)
// As narrow rounds. A store of half a vector takes longer than all of this.
inline Words rounded(Floats a, Floats b, const BFloat16*) {
  const auto upper = [](Floats x) {
    const Doubles bits = (Doubles)x, nearest = bits + 0x7FFF + (bits >> 16 & 1);
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    return _mm512_mask_set1_epi32((__m512i)nearest, nan, 0x7FC00000);
  };
  alignas(64) static constexpr uint16_t kOdd[] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                  23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                  45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return (Words)_mm512_permutex2var_epi16(upper(a), (__m512i)load<Words>(kOdd), upper(b));
}

inline Words rounded(Floats a, Floats b, const Half*) {
  const auto half = [](Floats x) {
    const __m256i bits = _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    const __m256i sign = _mm256_and_si256(bits, _mm256_set1_epi16(static_cast<int16_t>(0x8000)));
    return _mm256_mask_mov_epi16(bits, nan, _mm256_or_si256(sign, _mm256_set1_epi16(0x7E00)));
  };
  return (Words)_mm512_inserti64x4(_mm512_castsi256_si512(half(a)), half(b), 1);
}

template <typename E, typename T>
int64_t write_halves(const E* from, int64_t count, float factor, float offset, T* to) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const Floats a = floats(from + i), b = floats(from + i + 16);
    store(to + i, rounded(a * factor + offset, b * factor + offset, to));
  }
  return i;
}

template <typename E>
int64_t write_vectors(const E* from, int64_t count, float factor, float offset, BFloat16* to) {
  return write_halves(from, count, factor, offset, to);
}

template <typename E>
int64_t write_vectors(const E* from, int64_t count, float factor, float offset, Half* to) {
  return write_halves(from, count, factor, offset, to);
}
#endif

template <typename E, typename T>
void write_plane(const E* from, int64_t count, float factor, float offset, T* to, int64_t step) {
  if (step == 1) {
    for (int64_t i = write_vectors(from, count, factor, offset, to); i < count; ++i) {
      to[i] = narrow<T>(static_cast<float>(from[i]) * factor + offset);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      to[i * step] = narrow<T>(static_cast<float>(from[i]) * factor + offset);
    }
  }
}

template <typename E, typename T>
void stream_plane(const E* from, int64_t count, float factor, float offset, T* to) {
  T buffer[kBuffer];
  for (int64_t i = 0; i < count; i += kBuffer) {
    const int64_t some = count - i < kBuffer ? count - i : kBuffer;
    write_plane(from + i, some, factor, offset, buffer, 1);
    stream(reinterpret_cast<char*>(to + i), reinterpret_cast<const char*>(buffer),
           some * static_cast<int64_t>(sizeof(T)));
  }
}

// Floats as they are made: a store more for each would fill the queue of stores.
template <typename E>
void stream_plane(const E* from, int64_t count, float factor, float offset, float* to) {
  int64_t i = 0;
#if defined(__x86_64__)
  constexpr int64_t kLanes = kViewBytes / 4;
  if (reinterpret_cast<uintptr_t>(to) % kViewBytes == 0) {
    for (; i + kLanes <= count; i += kLanes) {
      stream(reinterpret_cast<char*>(to + i), floats(from + i) * factor + offset);
    }
  }
#endif
  write_plane(from + i, count - i, factor, offset, to + i, 1);
}

// Three channels side by side, of planes `apart` elements apart.
template <typename E, typename T>
void write_side_by_side(const Target& target, const E* from, int64_t apart, int64_t count, T* to) {
  const float factor[] = {target.factor(0), target.factor(1), target.factor(2)};
  const float offset[] = {target.offset(0), target.offset(1), target.offset(2)};
  for (int64_t i = 0; i < count; ++i) {
    for (int c = 0; c < 3; ++c) {
      to[3 * i + c] = narrow<T>(static_cast<float>(from[i + c * apart]) * factor[c] + offset[c]);
    }
  }
}

template <typename E, typename T>
void stream_side_by_side(const Target& target, const E* from, int64_t apart, int64_t count, T* to) {
  constexpr int64_t kPixels = kBuffer / 3;
  T buffer[3 * kPixels];
  for (int64_t i = 0; i < count; i += kPixels) {
    const int64_t some = count - i < kPixels ? count - i : kPixels;
    write_side_by_side(target, from + i, apart, some, buffer);
    stream(reinterpret_cast<char*>(to + 3 * i), reinterpret_cast<const char*>(buffer),
           3 * some * static_cast<int64_t>(sizeof(T)));
  }
}

// `count` pixels of channel c from `first` on of the view.
template <typename T, typename E>
void write_channel_as(const Target& target, const E* from, int64_t c, int64_t first,
                      int64_t count) {
  T* const out = reinterpret_cast<T*>(target.out);
  const float factor = target.factor(c), offset = target.offset(c);
  if (target.channels_last) {
    T* const to = out + first * target.channels + c;
    write_plane(from, count, factor, offset, to, target.channels);
  } else if (target.streamed) {
    stream_plane(from, count, factor, offset, out + c * target.plane + first);
  } else {
    write_plane(from, count, factor, offset, out + c * target.plane + first, 1);
  }
}

template <typename T, typename E>
void write_pixels_as(const Target& target, const E* from, int64_t apart, int64_t first,
                     int64_t count) {
  if (target.channels_last && target.channels == 3) {
    T* const to = reinterpret_cast<T*>(target.out) + 3 * first;
    if (target.streamed) return stream_side_by_side(target, from, apart, count, to);
    return write_side_by_side(target, from, apart, count, to);
  }
  for (int64_t c = 0; c < target.channels; ++c) {
    write_channel_as<T>(target, from + c * apart, c, first, count);
  }
}

// f(a number of what the views are made of).
template <typename F>
void with_number(Dtype dtype, const F& f) {
  if (dtype == Dtype::kBFloat16) return f(BFloat16{});
  if (dtype == Dtype::kFloat16) return f(Half{});
  f(0.0f);
}

template <typename E>
void write_channel(const Target& target, const E* from, int64_t c, int64_t first, int64_t count) {
  with_number(target.dtype, [&](auto number) {
    write_channel_as<decltype(number)>(target, from, c, first, count);
  });
}

// All channels, of planes `apart` elements apart.
template <typename E>
void write_pixels(const Target& target, const E* from, int64_t apart, int64_t first,
                  int64_t count) {
  with_number(target.dtype, [&](auto number) {
    write_pixels_as<decltype(number)>(target, from, apart, first, count);
  });
}

}  // namespace fastcl::FASTCL_SIMD
