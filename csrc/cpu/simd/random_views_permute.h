// The resized crop of 8-bit images where the lanes of two vectors can be permuted at will
// (AVX-512): row after row of the view, down the columns of the image, its channels taken apart,
// and along the row, whose pixels are picked out of the registers. Nothing is turned, unlike in
// random_views_resize.h, and the sums are the same.
#pragma once

#include "cpu/simd/random_views_picks.h"

namespace fastcl::FASTCL_SIMD {

// The crop as planes [channels, size * size], done(pixels) while there are so many; or false where
// this is not for its numbers.
template <typename A, typename P, typename F>
bool resize_by_picks(const Crop<P>&, const Axis<A>&, const Axis<A>&, int64_t, int64_t,
                     typename A::Element*, int64_t, Arena, const F&) {
  return false;
}

#if defined(__AVX512BW__)

// Bytes of rows that are on their way into the cache before they are read.
constexpr int64_t kAhead = 3072;
// Bytes of the rows of one sum beyond which they leave the first cache before the next row of the
// view wants them, and numbers of a row of the view below which to prepare takes longer.
constexpr int64_t kNear = 12 << 10, kShort = 64;
// Rows at a time: what has been stored is then in the cache, see kBlurRows.
constexpr int64_t kRows = 8;

inline __m512i load_64(const uint8_t* from, Whole) { return _mm512_loadu_si512(from); }
inline __m512i load_64(const uint8_t* from, __mmask64 inside) {
  return _mm512_maskz_loadu_epi8(inside, from);
}
inline __m256i load_32(const uint8_t* from, Whole) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline __m256i load_32(const uint8_t* from, __mmask64 inside) {
  return _mm256_maskz_loadu_epi8(static_cast<__mmask32>(inside), from);
}

// Where words c, c + 3, .. of the first 64 of 96 are after they have been unpacked, and which lanes
// have them; then of the other 32.
struct Apart {
  uint16_t of_two[3][kWords], of_last[3][kWords];
  uint32_t in_last[3];
};

constexpr Apart words_apart() {
  Apart found{};
  for (int c = 0; c < 3; ++c) {
    for (int k = 0; k < kWords; ++k) {
      const int e = 3 * k + c, within = e % 16;
      if (e < 64) {
        found.of_two[c][k] = e / 16 * 8 + within % 8 + (within < 8 ? 0 : kWords);
      } else {
        found.of_last[c][k] = e - 64;
        found.in_last[c] |= 1u << k;
      }
    }
  }
  return found;
}

// A row of the view down the columns: `taps` rows of the image, so many elements apart.
template <typename N>
struct Down {
  static constexpr bool kMany = sizeof(N) == sizeof(int64_t);
  N taps;
  int64_t row, stride;
  Words start;
  const uint32_t* weights;  // [taps, stride]
  Words few[kFewTaps];      // the same, where they are so many at most

  Down(N taps, const Axis<Fixed>& axis, int64_t i, int64_t row)
      : taps(taps),
        row(row),
        stride(axis.stride),
        start(Fixed::splat(axis.start[i])),
        weights(axis.weights + i) {
    for (int64_t j = 0; !kMany && j < taps; ++j) few[j] = Fixed::splat(weights[j * stride]);
  }

  Words weight(int64_t j) const { return kMany ? Fixed::splat(weights[j * stride]) : few[j]; }
  static Words done(Words sum) {
    const Words x = kMany ? Fixed::lowered(sum) : sum;
    return x + x;
  }
  // The lower and the upper half of every 16 of 64 bytes, those of `inside`.
  template <typename M>
  static void unpack(const uint8_t* from, M inside, Words& low, Words& high) {
    const auto below = (__m512i)(Bytes{} + static_cast<uint8_t>(kMany ? 0x80 : 0));
    __m512i x = load_64(from, inside);
    in_register(x);
    low = (Words)_mm512_unpacklo_epi8(below, x);
    high = (Words)_mm512_unpackhi_epi8(below, x);
  }
  // 32 bytes.
  template <typename M>
  static Words widen(const uint8_t* from, M inside) {
    const Words x = (Words)_mm512_cvtepu8_epi16(load_32(from, inside)) << 8;
    return kMany ? x | 0x80 : x;
  }
};

// 32 numbers of one channel.
template <typename N, typename M>
inline void down_columns(const Down<N>& down, const uint8_t* from, M inside, uint16_t* to) {
  Words sum = down.start;
  for (int64_t j = 0; j < down.taps; ++j) {
    sum += high_product(Down<N>::widen(from + j * down.row, inside), down.weight(j));
  }
  store(to, Down<N>::done(sum));
}

// 32 pixels of three channels, which go so many words apart: 64 numbers and 32.
template <typename N, typename M>
inline void down_columns_of_three(const Down<N>& down, const uint8_t* from, M inside, M rest,
                                  uint16_t* to, int64_t apart) {
  alignas(64) static constexpr Apart kApart = words_apart();
  Words low = down.start, high = low, last = low;
  for (int64_t j = 0; j < down.taps; ++j) {
    const uint8_t* at = from + j * down.row;
    const Words weight = down.weight(j);
    Words x, y;
    Down<N>::unpack(at, inside, x, y);
    low += high_product(x, weight);
    high += high_product(y, weight);
    last += high_product(Down<N>::widen(at + 64, rest), weight);
  }
  low = Down<N>::done(low);
  high = Down<N>::done(high);
  last = Down<N>::done(last);
  for (int c = 0; c < 3; ++c) {
    const Words two = picked(low, load<Words>(kApart.of_two[c]), high);
    const auto third = (__m512i)load<Words>(kApart.of_last[c]);
    store(to + c * apart, (Words)_mm512_mask_permutexvar_epi16((__m512i)two, kApart.in_last[c],
                                                               third, (__m512i)last));
  }
}

// A row of `width` pixels of one channel, or of three.
template <typename N>
inline void down_row(const Down<N>& down, const uint8_t* from, int64_t width, bool three,
                     uint16_t* to, int64_t apart) {
  int64_t p = 0;
  if (three) {
    for (; p + kWords <= width; p += kWords) {
      down_columns_of_three(down, from + 3 * p, Whole{}, Whole{}, to + p, apart);
    }
    const int64_t left = 3 * (width - p);
    if (left == 0) return;
    down_columns_of_three(down, from + 3 * p, first_of(left), first_of(left - 64), to + p, apart);
  } else {
    for (; p + kWords <= width; p += kWords) down_columns(down, from + p, Whole{}, to + p);
    if (p < width) down_columns(down, from + p, first_of(width - p), to + p);
  }
}

// Rows from .. to of the crop on their way into the cache.
inline void prefetch(const Crop<uint8_t>& crop, int64_t from, int64_t to) {
  for (int64_t y = from; y < to; ++y) {
    for (int64_t part = 0; part < crop.parts; ++part) {
      const uint8_t* row = crop.first + y * crop.row + part * crop.part;
      for (int64_t e = 0; e < crop.length; e += 64) __builtin_prefetch(row + e);
    }
  }
}

// Whether the sums of this crop are made faster here.
inline bool suits_picks(const Crop<uint8_t>& crop, int64_t row_taps, int64_t column_taps,
                        int64_t channels, int64_t size) {
  return (crop.step == 1 || crop.step == 3) && row_taps <= kMostTapsOfPicks &&
         column_taps <= kMostTapsOfPicks && row_taps * crop.parts * crop.length <= kNear &&
         channels * size >= kShort;
}

// The crop as planes [channels, size * size], or false where its rows are not of a kind for this.
template <typename F>
bool resize_by_picks(const Crop<uint8_t>& crop, const Axis<Fixed>& rows, const Axis<Fixed>& columns,
                     int64_t channels, int64_t size, uint16_t* planes, int64_t plane, Arena arena,
                     const F& done) {
  if (!suits_picks(crop, rows.taps, columns.taps, channels, size)) return false;
  const int64_t width = crop.length / crop.step, outputs = outputs_of_block(columns, size);
  const bool three = crop.step == 3;
  const Picks picks = picks_of(columns, size, outputs, arena);
  const int64_t apart = (width + 4 * kWords) / kWords * kWords, channel = kRows * apart;
  uint16_t* strip = arena.take<uint16_t>(channels * channel);
  const int64_t ahead = 2 + kAhead / (crop.parts * crop.length);
  int64_t fetched = rows.first[0];
  for (int64_t i = 0; i < size; i += kRows) {
    const int64_t count = size - i < kRows ? size - i : kRows;
    with_taps(rows.taps, [&](auto taps) {
      for (int64_t y = 0; y < count; ++y) {
        const Down<decltype(taps)> down(taps, rows, i + y, crop.row);
        const uint8_t* from = crop.first + rows.first[i + y] * crop.row;
        const int64_t next = i + y + ahead < size ? i + y + ahead : size - 1;
        const int64_t until = rows.first[next] + rows.taps;
        prefetch(crop, fetched, until);
        fetched = until;
        uint16_t* to = strip + y * apart;
        for (int64_t part = 0; part < crop.parts; ++part) {
          down_row(down, from + part * crop.part, width, three, to + part * channel, channel);
        }
      }
    });
    with_taps(picks.taps, [&](auto taps) {
      for (int64_t c = 0; c < channels; ++c) {
        along_rows(picks, taps, strip + c * channel, apart, count, size,
                   planes + c * plane + i * size);
      }
    });
    done((i + count) * size);
  }
  return true;
}

#endif

}  // namespace fastcl::FASTCL_SIMD
