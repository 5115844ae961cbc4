// Along rows whose pixels are picked out of two vectors, their lanes permuted at will (AVX-512).
#pragma once

#include "cpu/simd/random_views_resize.h"

namespace fastcl::FASTCL_SIMD {

// Outputs of a block, where they are fewer than a vector has.
constexpr int64_t kFewest = 16;

inline int64_t scratch_of_picks(int64_t taps, int64_t size) {
  return (size / kFewest + 1) * (taps + 3) * kViewBytes;
}

#if defined(__AVX512BW__)

constexpr int64_t kWords = Fixed::kLanes;
// Of either axis; with more it takes longer than to turn.
constexpr int64_t kMostTapsOfPicks = 5;

// An axis by blocks of outputs, each of which takes its inputs from two vectors on from `base`.
struct Picks {
  int64_t outputs, blocks, taps;  // outputs: of a block
  int64_t* base;                  // [blocks]
  Words* first;                   // [blocks] input of the first tap, from base on
  Words* start;                   // [blocks]
  Words* weights;                 // [blocks, taps]
};

// The lowest input of outputs i .. i + count, which may be mirrored.
inline int64_t lowest_input(const Axis<Fixed>& axis, int64_t i, int64_t count) {
  const int64_t one = axis.first[i], other = axis.first[i + count - 1];
  return one < other ? one : other;
}

// Outputs of a block whose inputs lie in two vectors: as many as a vector has, or half of them,
// which do where an output has kMostTapsOfPicks at most, and so is at most 2.5 inputs from the
// next.
inline int64_t outputs_of_block(const Axis<Fixed>& axis, int64_t size) {
  for (int64_t i = 0; i < size; i += kWords) {
    const int64_t count = size - i < kWords ? size - i : kWords;
    const int64_t low = lowest_input(axis, i, count);
    const int64_t high = axis.first[i] + axis.first[i + count - 1] - low + axis.taps - 1;
    if (high - low >= 2 * kWords) return kFewest;
  }
  return kWords;
}

inline Picks picks_of(const Axis<Fixed>& axis, int64_t size, int64_t outputs, Arena& arena) {
  const int64_t blocks = (size + outputs - 1) / outputs, taps = axis.taps;
  Picks picks{outputs,
              blocks,
              taps,
              arena.take<int64_t>(blocks),
              arena.take<Words>(blocks),
              arena.take<Words>(blocks),
              arena.take<Words>(blocks * taps)};
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t i = b * outputs, count = size - i < outputs ? size - i : outputs;
    picks.base[b] = lowest_input(axis, i, count);
    Words first{}, start{}, weight{};
    for (int64_t l = 0; l < count; ++l) {
      first[l] = static_cast<uint16_t>(axis.first[i + l] - picks.base[b]);
      start[l] = static_cast<uint16_t>(axis.start[i + l]);
    }
    picks.first[b] = first;
    picks.start[b] = start;
    for (int64_t j = 0; j < taps; ++j) {
      for (int64_t l = 0; l < count; ++l) {
        weight[l] = static_cast<uint16_t>(axis.weights[j * axis.stride + i + l]);
      }
      picks.weights[b * taps + j] = weight;
    }
  }
  return picks;
}

// The first of 64 bytes; the others are not touched.
inline __mmask64 first_of(int64_t count) {
  return count >= 64 ? ~__mmask64(0) : count <= 0 ? 0 : ~__mmask64(0) >> (64 - count);
}

// In place of a mask: all.
struct Whole {};
inline void store_some(uint16_t* to, Words x, Whole) { store(to, x); }
inline void store_some(uint16_t* to, Words x, __mmask64 some) {
  _mm512_mask_storeu_epi16(to, static_cast<__mmask32>(some), (__m512i)x);
}

// Along `count` rows, so many words apart, for block b; the pixels go to rows of `size`.
template <typename N, typename M>
[[gnu::noinline]] void along_rows(const Picks& picks, int64_t b, N taps, const uint16_t* rows,
                                  int64_t apart, int64_t count, int64_t size, uint16_t* to,
                                  M whole) {
  constexpr bool kMany = sizeof(N) == sizeof(int64_t);
  const uint16_t* from = rows + picks.base[b];
  const Words first = picks.first[b], start = picks.start[b];
  const Words* weights = picks.weights + b * taps;
  Words at[kFewTaps], weight[kFewTaps];
  for (int64_t j = 0; !kMany && j < taps; ++j) {
    at[j] = first + static_cast<uint16_t>(j);
    weight[j] = weights[j];
  }
  for (int64_t y = 0; y < count; ++y) {
    Words x = load<Words>(from + y * apart), z = load<Words>(from + y * apart + kWords);
    in_register(x);
    in_register(z);
    Words sum = start, next = first;
    for (int64_t j = 0; j < taps; ++j) {
      sum += high_product(picked(x, kMany ? next : at[j], z), kMany ? weights[j] : weight[j]);
      next += 1;
    }
    store_some(to + y * size, Fixed::lowered(sum), whole);
  }
}

template <typename N>
inline void along_rows(const Picks& picks, N taps, const uint16_t* rows, int64_t apart,
                       int64_t count, int64_t size, uint16_t* to) {
  int64_t i = 0, b = 0;
  for (; i + kWords <= size && picks.outputs == kWords; i += kWords, ++b) {
    along_rows(picks, b, taps, rows, apart, count, size, to + i, Whole{});
  }
  for (; i < size; i += picks.outputs, ++b) {
    const int64_t left = size - i;
    const __mmask64 some = first_of(left < picks.outputs ? left : picks.outputs);
    along_rows(picks, b, taps, rows, apart, count, size, to + i, some);
  }
}

#endif

}  // namespace fastcl::FASTCL_SIMD
