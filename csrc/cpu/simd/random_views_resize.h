// The resized crop: kLanes rows of the view at a time, first down the columns of the image, turned
// so that lanes are rows, along the rows, and turned back. What lies between stays in cache.
#pragma once

#include "cpu/simd/random_views_axis.h"
#include "cpu/simd/random_views_turn.h"

namespace fastcl::FASTCL_SIMD {

template <typename P>
struct Crop {
  const P* first;         // its first element
  const P* end;           // of the memory that may be read
  int64_t row;            // elements from one row to the next
  int64_t part;           // and from one part to the next
  int64_t parts, length;  // the channels with rows of one number per pixel; else 1, with all
  int64_t step;           // elements from one pixel to the next

  // Elements of a part of the strip, whole vectors of bytes.
  int64_t padded() const { return (length + kViewBytes - 1) / kViewBytes * kViewBytes; }
};

template <int n>
struct Count {
  constexpr operator int64_t() const { return n; }
};

// More than kRoundedTaps, of Fixed.
struct Pairs {
  int64_t taps;
};

// f with the number of taps, known to the compiler where they are few.
template <typename F>
inline void with_taps(int64_t taps, const F& f) {
  if (taps == 1) return f(Count<1>{});
  if (taps == 2) return f(Count<2>{});
  if (taps == 3) return f(Count<3>{});
  if (taps == kFewTaps) return f(Count<kFewTaps>{});
  f(taps);
}

template <typename A, typename F>
inline void with_taps_of(const Axis<A>& axis, const F& f) {
  if constexpr (sizeof(typename A::Element) == 2) {
    if (axis.taps > kRoundedTaps) return f(Pairs{axis.taps});
  }
  with_taps(axis.taps, f);
}

// Elements of one step down the columns: of bytes a whole vector.
constexpr int kChunk = kViewBytes;

// Elements from `from` on; where not all are inside, zeros from end on.
template <typename V, bool kInside, typename P>
inline V load_before(const P* from, const P* end) {
  if (kInside) return load<V>(from);
  V x{};
  const int64_t bytes = (end - from) * static_cast<int64_t>(sizeof(P));
  if (bytes >= static_cast<int64_t>(sizeof(V))) return load<V>(from);
  if (bytes > 0) __builtin_memcpy(&x, from, bytes);
  return x;
}

// sum_j weight_j x_j over taps rows; for Fixed raised, and times two, which the next step wants.
template <bool kInside, typename N>
inline void column_sums(const uint8_t* from, int64_t row, const uint8_t* end, N taps,
                        const Axis<Fixed>& axis, int64_t i, uint16_t* to) {
  constexpr bool many = sizeof(N) == sizeof(int64_t);
  constexpr uint16_t half = many ? 0x80 : 0;
  Words even = Fixed::splat(axis.start[i]), odd = even;
  for (int64_t j = 0; j < taps; ++j) {
    __builtin_prefetch(from + j * row + 2 * kChunk);
    const Words x = load_before<Words, kInside>(from + j * row, end);
    const Words weight = Fixed::splat(axis.weights[j * axis.stride + i]);
    even += high_product(x << 8 | half, weight);
    odd += high_product((x & 0xFF00) | half, weight);
  }
  if (many) {
    even = Fixed::lowered(even);
    odd = Fixed::lowered(odd);
  }
  store(to, even + even);
  store(to + Fixed::kLanes, odd + odd);
}

template <bool kInside>
inline void column_sums(const uint8_t* from, int64_t row, const uint8_t* end, Pairs pairs,
                        const Axis<Fixed>& axis, int64_t i, uint16_t* to) {
  constexpr uint32_t kStart = (2 * kRaised << 8) + 128;  // raised, and rounded to the nearest
  Doubles sums[4] = {kStart - Doubles{}, kStart - Doubles{}, kStart - Doubles{},
                     kStart - Doubles{}};
  for (int64_t j = 0; j < pairs.taps; j += 2) {
    const uint8_t* at = from + j * row;
    const int64_t next = j + 1 < pairs.taps ? row : 0;  // of the last one the weight is zero
    __builtin_prefetch(at + 2 * kChunk);
    __builtin_prefetch(at + next + 2 * kChunk);
    const Words x = load_before<Words, kInside>(at, end);
    const Words y = load_before<Words, kInside>(at + next, end);
    const Words weight = Fixed::splat(axis.weights[j / 2 * axis.stride + i]);
    const Words low = zip_low(x, y), high = zip_high(x, y);
    sums[0] += pair_sums(low & 0xFF, weight);
    sums[1] += pair_sums(high & 0xFF, weight);
    sums[2] += pair_sums(low >> 8, weight);
    sums[3] += pair_sums(high >> 8, weight);
  }
  // The lowest 16 bits of the quotient by 2^8.
  store(to, joined(sums[0] << 8, sums[1] << 8));
  store(to + Fixed::kLanes, joined(sums[2] << 8, sums[3] << 8));
}

template <bool kInside, typename P, typename N>
inline void column_sums(const P* from, int64_t row, const P* end, N taps, const Axis<Float>& axis,
                        int64_t i, float* to) {
  typedef P Pixels __attribute__((vector_size(Float::kLanes * sizeof(P))));
  constexpr int kVectors = kChunk / Float::kLanes;
  const float unit = sizeof(P) == 1 ? 1 / 255.0f : sizeof(P) == 2 ? 1 / 65535.0f : 1;
  Floats sum[kVectors]{};
  for (int64_t j = 0; j < taps; ++j) {
    const Floats weight = Float::splat(axis.weights[j * axis.stride + i]);
    for (int v = 0; v < kVectors; ++v) {
      const P* at = from + j * row + v * Float::kLanes;
      const Pixels x = load_before<Pixels, kInside>(at, end);
      sum[v] += floats(reinterpret_cast<const P*>(&x)) * weight;
    }
  }
  for (int v = 0; v < kVectors; ++v) store(to + v * Float::kLanes, sum[v] * unit);
}

// Rows from i on, down the columns, with rows as lanes: strip [parts, padded, kLanes].
template <bool kInside, typename A, typename P, typename N>
void fill_strip(const Crop<P>& crop, const Axis<A>& axis, int64_t i, int64_t size, N taps,
                typename A::Element* strip) {
  typename A::Element sums[A::kLanes * kChunk];
  for (int64_t part = 0; part < crop.parts; ++part) {
    for (int64_t e = 0; e < crop.length; e += kChunk) {
      for (int64_t l = 0; l < A::kLanes; ++l) {
        const int64_t output = i + l < size ? i + l : size - 1;
        const P* from = crop.first + part * crop.part + axis.first[output] * crop.row + e;
        column_sums<kInside>(from, crop.row, crop.end, taps, axis, output, sums + l * kChunk);
      }
      for (int64_t k = 0; k < kChunk; k += kSide<A>) {
        const int64_t within = A::kSums == 1 ? k : k % A::kLanes * 2 + k / A::kLanes;
        if (e + within >= crop.length) continue;
        typename A::Vector x[kSide<A>];
        for (int l = 0; l < kSide<A>; ++l) {
          x[l] = load_apart<A>(sums + l * kChunk + k, kSide<A> * kChunk);
        }
        turn<A>(x);
        typename A::Element* to = strip + (part * crop.padded() + e + within) * A::kLanes;
        for (int l = 0; l < kSide<A>; ++l) store(to + l * A::kSums * A::kLanes, x[l]);
      }
    }
  }
}

// Of numbers of 16 bits with a sign, which what they are above 2^15 is.
inline Words row_sum(const uint16_t* from, int64_t step, Pairs pairs, const Axis<Fixed>& axis,
                     int64_t i) {
  constexpr uint32_t kStart = (1u << 31) + (1u << 16);  // 2^15 of 2^16 weights, and half a unit
  Doubles low = kStart - Doubles{}, high = low;
  for (int64_t j = 0; j < pairs.taps; j += 2) {
    const int64_t next = j + 1 < pairs.taps ? step : 0;
    const Words x = load<Words>(from + j * step) ^ 0x8000;
    const Words y = load<Words>(from + j * step + next) ^ 0x8000;
    const Words weight = Fixed::splat(axis.weights[j / 2 * axis.stride + i]);
    low += pair_sums(zip_low(x, y), weight);
    high += pair_sums(zip_high(x, y), weight);
  }
  return joined(low >> 1, high >> 1);
}

template <typename A, typename N>
inline typename A::Vector row_sum(const typename A::Element* from, int64_t step, N taps,
                                  const Axis<A>& axis, int64_t i) {
  typename A::Vector sum = A::splat(axis.start[i]);
  for (int64_t j = 0; j < taps; ++j) {
    sum += A::share(load<typename A::Vector>(from + j * step),
                    A::splat(axis.weights[j * axis.stride + i]));
  }
  return sum;
}

// Pixels i .. i + kSide of one channel in rows of the strip, turned back.
template <typename A, typename N>
inline void row_sums(const typename A::Element* strip, int64_t step, N taps, const Axis<A>& axis,
                     int64_t i, typename A::Vector* x) {
  for (int64_t k = 0; k < kSide<A>; ++k) {
    const typename A::Element* from = strip + axis.first[i + k] * step;
    x[k] = A::lowered(row_sum(from, step, taps, axis, i + k));
  }
  turn<A>(x);
}

// Along the rows: kLanes rows of one channel, or as many as there are, at `to`.
template <typename A, typename N>
void drain_strip(const typename A::Element* strip, int64_t step, const Axis<A>& axis, N taps,
                 int64_t rows, int64_t size, typename A::Element* to) {
  for (int64_t i = 0; i < size; i += kSide<A>) {
    typename A::Vector x[kSide<A>];
    row_sums<A>(strip, step, taps, axis, i, x);
    const int64_t bytes = (size - i < kSide<A> ? size - i : kSide<A>)*sizeof(typename A::Element);
#pragma GCC unroll 4
    for (int l = 0; l < kSquares; ++l) {
#pragma GCC unroll 8
      for (int k = 0; k < kSide<A>; ++k) {
        const int64_t row = l * kSide<A> + k;
        if (row >= rows) break;
        const auto pixels = square(x[k], l);
        typename A::Element* at = to + row * size + i;
        if (bytes == 16) {
          store(at, pixels);
        } else {
          __builtin_memcpy(at, &pixels, bytes);
        }
      }
    }
  }
}

// The crop as planes [channels, size * size]; done(pixels) while there are so many.
template <typename A, typename P, typename F>
void resize(const Crop<P>& crop, const Axis<A>& rows, const Axis<A>& columns, int64_t channels,
            int64_t size, typename A::Element* strip, typename A::Element* planes, int64_t plane,
            const F& done) {
  for (int64_t i = 0; i < size; i += A::kLanes) {
    const int64_t last = rows.first[i + A::kLanes < size ? i + A::kLanes - 1 : size - 1];
    const bool inside = crop.first + (crop.parts - 1) * crop.part +
                            (last + rows.taps - 1) * crop.row + crop.padded() <=
                        crop.end;
    with_taps_of(rows, [&](auto taps) {
      inside ? fill_strip<true, A>(crop, rows, i, size, taps, strip)
             : fill_strip<false, A>(crop, rows, i, size, taps, strip);
    });
    const int64_t some = size - i < A::kLanes ? size - i : A::kLanes;
    for (int64_t c = 0; c < channels; ++c) {
      const auto* from = strip + (crop.parts == 1 ? c : c * crop.padded()) * A::kLanes;
      with_taps_of(columns, [&](auto taps) {
        drain_strip<A>(from, crop.step * A::kLanes, columns, taps, some, size,
                       planes + c * plane + i * size);
      });
    }
    done((i + some) * size);
  }
}

}  // namespace fastcl::FASTCL_SIMD
