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
};

constexpr int64_t kBuffer = 1024;

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
  constexpr E one = A::kOne;
  const float units = threshold * A::kOne;
  const E from = sizeof(E) == 4 ? static_cast<E>(units) : static_cast<E>(units + 0.99f);
  for (int64_t i = 0; i < count; ++i) {
    const E x = pixels[i], inverse = x > one && sizeof(E) == 2 ? E(0) : E(one - x);
    pixels[i] = x >= from ? inverse : x;
  }
}

template <typename E, typename T>
void write_plane(const E* from, int64_t count, float factor, float offset, T* to, int64_t step) {
  if (step == 1) {
    for (int64_t i = 0; i < count; ++i) {
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
  typedef E Pixels __attribute__((vector_size(kLanes * sizeof(E))));
  if (reinterpret_cast<uintptr_t>(to) % kViewBytes == 0) {
    for (; i + kLanes <= count; i += kLanes) {
      const Floats x = __builtin_convertvector(load<Pixels>(from + i), Floats);
      stream(reinterpret_cast<char*>(to + i), x * factor + offset);
    }
  }
#endif
  write_plane(from + i, count - i, factor, offset, to + i, 1);
}

// `count` pixels of channel c from `first` on of the view.
template <typename T, typename E>
void write_channel_as(const Target& target, const E* from, int64_t c, int64_t first,
                      int64_t count) {
  T* const out = reinterpret_cast<T*>(target.out);
  const float factor = target.unit / target.deviation[c];
  const float offset = -target.mean[c] / target.deviation[c];
  if (target.channels_last) {
    T* const to = out + first * target.channels + c;
    write_plane(from, count, factor, offset, to, target.channels);
  } else if (target.streamed) {
    stream_plane(from, count, factor, offset, out + c * target.plane + first);
  } else {
    write_plane(from, count, factor, offset, out + c * target.plane + first, 1);
  }
}

template <typename E>
void write_channel(const Target& target, const E* from, int64_t c, int64_t first, int64_t count) {
  if (target.dtype == Dtype::kBFloat16) {
    return write_channel_as<BFloat16>(target, from, c, first, count);
  }
  if (target.dtype == Dtype::kFloat16) {
    return write_channel_as<Half>(target, from, c, first, count);
  }
  write_channel_as<float>(target, from, c, first, count);
}

}  // namespace fastcl::FASTCL_SIMD
