// The weights of an antialiased resize along one axis, as PyTorch's interpolate has them in float:
// output i takes the inputs whose distance from scale * (i + 1/2) is below max(scale, 1), with
// weights that fall to zero there and sum to one.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "cpu/simd/random_views_arithmetic.h"

namespace fastcl::FASTCL_SIMD {

// Memory of one thread, handed out piece by piece; under AddressSanitizer with a line between two
// that nobody may touch.
struct Arena {
  static constexpr int64_t kLine = 64;
  char* next;

  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(next, bytes);
    __asan_poison_memory_region(next + bytes, kLine);
    next += kLine;
#endif
    next += (bytes + kLine - 1) / kLine * kLine;
    return piece;
  }
};

template <typename A>
struct Axis {
  using Weight = typename A::Weight;

  int64_t taps, stride;
  int32_t* first;   // [stride] input of the first tap
  Weight* start;    // [stride] what the sum begins with: half of what rounding will take off
  Weight* weights;  // [taps, stride], or of pairs [(taps + 1) / 2, stride]
};

constexpr int64_t kAxisLanes = kViewBytes / 4;

// See kRaised.
constexpr int64_t kFewTaps = 4;
// Products that are rounded down each. Where they are more, and all pixels alike, what half a unit
// for each does not make good could be a tenth of a level: they are summed in 32 bits, in pairs.
constexpr int64_t kRoundedTaps = 8;

inline int64_t axis_stride(int64_t out) { return (out + 31) / 32 * 32; }

inline int64_t axis_taps(int64_t in, int64_t out) {
  if (in == out) return 1;
  const int64_t reach = in <= out ? 2 : (2 * in + out - 1) / out;
  return reach < in ? reach : in;
}

// Of more than kRoundedTaps, two that follow each other in one number. They sum to 2^16, as does
// what has been rounded so far to what it is, and no one of them takes what all others left.
inline void round_pairs(Axis<Fixed>& axis, const Floats* weight, Floats total, int64_t i) {
  const Floats factor = 65536.0f / total;
  Floats so_far{};
  Integers taken{};
  const auto next = [&](int64_t j) {
    so_far += weight[j];
    const Integers until = __builtin_convertvector(so_far * factor + 0.5f, Integers);
    const auto share = (Doubles)(until - taken);
    taken = until;
    return share;
  };
  for (int64_t j = 0; j < axis.taps; j += 2) {
    const Doubles first = next(j), second = j + 1 < axis.taps ? next(j + 1) : Doubles{};
    store(axis.weights + j / 2 * axis.stride + i, second << 16 | first);
  }
}

// Shares of one for kAxisLanes outputs in 16 bits: they sum to 2^15, the largest takes what
// rounding left. raised: what the sum is to be larger by.
inline void round_weights(Axis<Fixed>& axis, const Floats* weight, Floats total, int64_t i,
                          int raised) {
  if (axis.taps > kRoundedTaps) return round_pairs(axis, weight, total, i);
  const Floats factor = 32768.0f / total;
  Integers sum{}, largest{}, used{};
  for (int64_t j = 0; j < axis.taps; ++j) {
    const Integers share = __builtin_convertvector(weight[j] * factor + 0.5f, Integers);
    sum += share;
    used -= share > 0;
    largest = share > largest ? share : largest;
  }
  Integers rest = 32768 - sum;
  for (int64_t j = 0; j < axis.taps; ++j) {
    Integers share = __builtin_convertvector(weight[j] * factor + 0.5f, Integers);
    const Integers takes = share == largest;
    share += rest & takes;
    rest &= ~takes;
    store(axis.weights + j * axis.stride + i, (Doubles)share << 16 | (Doubles)share);
  }
  const Doubles start = (Doubles)((used >> 1) + raised);
  store(axis.start + i, start << 16 | start);
}

inline void round_weights(Axis<Float>& axis, const Floats* weight, Floats total, int64_t i, int) {
  for (int64_t j = 0; j < axis.taps; ++j) {
    store(axis.weights + j * axis.stride + i, weight[j] / total);
  }
  store(axis.start + i, Floats{});
}

// Of `in` inputs and `out` outputs, which begin at the other end where mirrored.
template <typename A>
Axis<A> resize_axis(int64_t in, int64_t out, bool mirror, int raised, Arena& arena) {
  const int64_t taps = axis_taps(in, out), stride = axis_stride(out);
  Axis<A> axis{taps, stride, arena.take<int32_t>(stride), arena.take<typename A::Weight>(stride),
               arena.take<typename A::Weight>(taps * stride)};
  Floats* weight = arena.take<Floats>(taps);
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  const float support = scale > 1 ? scale : 1, inverse = 1 / support;
  Integers output{};
  for (int l = 0; l < kAxisLanes; ++l) output[l] = l;
  for (int64_t i = 0; i < stride; i += kAxisLanes, output += static_cast<int>(kAxisLanes)) {
    const Integers last = static_cast<int>(out - 1) - Integers{};
    const Integers within = output < last ? output : last;
    const Floats position = __builtin_convertvector(mirror ? last - within : within, Floats);
    const Floats center = (position + 0.5f) * scale;
    const Integers limit = static_cast<int>(in - taps) - Integers{};
    Integers first = __builtin_convertvector(center - support + 0.5f, Integers);
    first = first > 0 ? first : Integers{};
    first = first < limit ? first : limit;
    Floats total{};
    for (int64_t j = 0; j < taps; ++j) {
      Floats x = __builtin_convertvector(first + static_cast<int>(j), Floats) - center + 0.5f;
      x = (x < 0 ? -x : x) * inverse;
      weight[j] = above(Float::splat(1), x);
      total += weight[j];
    }
    store(axis.first + i, first);
    round_weights(axis, weight, total, i, raised);
  }
  return axis;
}

}  // namespace fastcl::FASTCL_SIMD
