// The blur: taps at the same distance are added before they are multiplied, down the columns into
// a row with reflected ends, along it, and out.
#pragma once

#include "cpu/simd/random_views_axis.h"
#include "cpu/simd/random_views_write.h"

namespace fastcl::FASTCL_SIMD {

// Vectors whose sums are made side by side, as each waits for its own.
constexpr int kTogether = 2;

template <typename A>
struct Taps {
  int64_t reach;             // taps on either side; 0: nothing to blur
  typename A::Weight start;  // of the sums, see kRaised
  typename A::Weight raised;
  typename A::Weight* weight;  // [reach + 1] from the middle on

  using Vector = typename A::Vector;
  // Of `count` numbers, or as many more as fill kTogether vectors: at(distance, sign) is where
  // their neighbours are, g takes the number of the first of a vector and their sums.
  template <typename F, typename G>
  void sums(int64_t count, const F& at, const G& g) const {
    const Vector from = A::splat(start), middle = A::splat(weight[0]);
    for (int64_t x = 0; x < count; x += kTogether * A::kLanes) {
      Vector total[kTogether];
      for (int k = 0; k < kTogether; ++k) {
        total[k] = from + A::share(load<Vector>(at(0, 0) + x + k * A::kLanes), middle);
      }
      for (int64_t j = 1; j <= reach; ++j) {
        const auto* before = at(j, 0) + x;
        const auto* after = at(j, 1) + x;
        const Vector share = A::splat(weight[j]);
        for (int k = 0; k < kTogether; ++k) {
          const auto both =
              load<Vector>(before + k * A::kLanes) + load<Vector>(after + k * A::kLanes);
          total[k] += A::share(both, share);
        }
      }
      for (int k = 0; k < kTogether; ++k) g(x + k * A::kLanes, total[k]);
    }
  }
};

// Shares in 16 bits that sum to one, with the middle; tails below 1/32 of a level are cut.
inline void round_taps(Taps<Fixed>& taps, const double* share) {
  constexpr double kTail = 1.0 / 32 / 255;
  double tail = 0;
  while (taps.reach > 0 && tail + 2 * share[taps.reach] < kTail) tail += 2 * share[taps.reach--];
  uint32_t middle = 65536;
  for (int64_t j = 1; j <= taps.reach; ++j) {
    const auto rounded = static_cast<uint32_t>(share[j] / (1 - tail) * 65536 + 0.5);
    taps.weight[j] = Fixed::twice(rounded);
    middle -= 2 * rounded;
  }
  taps.weight[0] = Fixed::twice(middle & 0xFFFF);
  const auto half = static_cast<uint32_t>(taps.reach + 1) / 2;
  taps.start = Fixed::twice(half);
  taps.raised = Fixed::twice(kRaised);
}

inline void round_taps(Taps<Float>& taps, const double* share) {
  for (int64_t j = 0; j <= taps.reach; ++j) taps.weight[j] = static_cast<float>(share[j]);
  while (taps.reach > 0 && share[taps.reach] < 1e-9) --taps.reach;
  taps.start = taps.raised = 0;
}

template <typename A>
Taps<A> blur_taps(float sigma, int64_t kernel, Arena& arena) {
  const int64_t reach = sigma > 0 ? kernel / 2 : 0;
  Taps<A> taps{reach, 0, 0, arena.take<typename A::Weight>(reach + 1)};
  double* share = arena.take<double>(reach + 1);
  double total = -1;
  for (int64_t j = 0; j <= reach; ++j) {
    const double distance = static_cast<double>(j) / static_cast<double>(sigma > 0 ? sigma : 1);
    share[j] = __builtin_exp(-distance * distance / 2);
    total += 2 * share[j];
  }
  for (int64_t j = 0; j <= reach; ++j) share[j] /= total;
  round_taps(taps, share);
  return taps;
}

inline int64_t reflected(int64_t i, int64_t size) {
  return i < 0 ? -i : i >= size ? 2 * size - 2 - i : i;
}

// Rows at a time: what one pass has stored is then in the cache, and no longer on its way there,
// when the next one loads it at other places.
constexpr int64_t kBlurRows = 8;

// Rows y .. y + count of a plane, down the columns and then along them; done(row, pixels) takes one
// after the other. wide has room for the rows, each with both ends and a vector, out for one.
template <typename A, typename F>
void blur_rows(const Taps<A>& taps, const typename A::Element* plane, int64_t y, int64_t count,
               int64_t size, const typename A::Element** rows, typename A::Element* wide,
               typename A::Element* out, const F& done) {
  const int64_t margin = (taps.reach + A::kLanes - 1) / A::kLanes * A::kLanes;
  const int64_t apart =
      (size + A::kLanes - 1) / A::kLanes * A::kLanes + 2 * margin + kTogether * A::kLanes;
  const auto raised = A::splat(taps.raised);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j <= taps.reach; ++j) {
      rows[2 * j] = plane + reflected(y + i - j, size) * size;
      rows[2 * j + 1] = plane + reflected(y + i + j, size) * size;
    }
    typename A::Element* const row = wide + i * apart + margin;
    taps.sums(
        size, [&](int64_t j, int64_t k) { return rows[2 * j + k]; },
        [&](int64_t x, auto sum) { store(row + x, sum + raised); });
    for (int64_t j = 1; j <= taps.reach; ++j) {
      row[-j] = row[j];
      row[size - 1 + j] = row[size - 1 - j];
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    const typename A::Element* const row = wide + i * apart + margin;
    taps.sums(
        size, [&](int64_t j, int64_t k) { return row + (k == 0 ? -j : j); },
        [&](int64_t x, auto sum) { store(out + x, A::lowered(sum)); });
    done(y + i, out);
  }
}

// Of the first `planes` planes, the others are like the first. Every row is written before the next
// is made: memory takes it meanwhile.
template <typename A>
void blur_and_write(const Taps<A>& taps, const typename A::Element* from, int64_t plane,
                    int64_t planes, int64_t size, const Target& target, Arena arena) {
  using E = typename A::Element;
  const E** rows = arena.take<const E*>(2 * (taps.reach + 1));
  E* wide = arena.take<E>(kBlurRows * (size + 2 * taps.reach + (3 + kTogether) * A::kLanes));
  E* out = arena.take<E>(size + kTogether * A::kLanes);
  for (int64_t y = 0; y < size; y += kBlurRows) {
    const int64_t count = size - y < kBlurRows ? size - y : kBlurRows;
    for (int64_t c = 0; c < planes; ++c) {
      blur_rows(taps, from + c * plane, y, count, size, rows, wide, out, [&](int64_t row, E* x) {
        solarise<A>(target.threshold, x, size);
        for (int64_t k = c; k < (planes == target.channels ? c + 1 : target.channels); ++k) {
          write_channel(target, x, k, row * size, size);
        }
      });
    }
  }
}

}  // namespace fastcl::FASTCL_SIMD
