// The blur: taps at the same distance are added before they are multiplied, down the columns into
// a row with reflected ends, along it, and out.
#pragma once

#include "cpu/simd/random_views_axis.h"
#include "cpu/simd/random_views_write.h"

namespace fastcl::FASTCL_SIMD {

template <typename A>
struct Taps {
  int64_t reach;             // taps on either side; 0: nothing to blur
  typename A::Weight start;  // of the sums, see kRaised
  typename A::Weight raised;
  typename A::Weight* weight;  // [reach + 1] from the middle on

  using Vector = typename A::Vector;
  // Whole vectors at x: f(distance, sign) is where its neighbours are.
  template <typename F>
  Vector sum(const F& at, int64_t x) const {
    Vector total = A::splat(start) + A::share(load<Vector>(at(0, 0) + x), A::splat(weight[0]));
    for (int64_t j = 1; j <= reach; ++j) {
      const Vector both = load<Vector>(at(j, 0) + x) + load<Vector>(at(j, 1) + x);
      total += A::share(both, A::splat(weight[j]));
    }
    return total;
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

// One row of a plane, down the columns and along it, to `out`; wide has room for the row, both
// ends and a vector.
template <typename A>
void blur_row(const Taps<A>& taps, const typename A::Element* plane, int64_t y, int64_t size,
              const typename A::Element** rows, typename A::Element* wide,
              typename A::Element* out) {
  for (int64_t j = 0; j <= taps.reach; ++j) {
    rows[2 * j] = plane + reflected(y - j, size) * size;
    rows[2 * j + 1] = plane + reflected(y + j, size) * size;
  }
  typename A::Element* const row = wide + taps.reach;
  for (int64_t x = 0; x < size; x += A::kLanes) {
    const auto at = [&](int64_t j, int64_t k) { return rows[2 * j + k]; };
    store(row + x, taps.sum(at, x) + A::splat(taps.raised));
  }
  for (int64_t j = 1; j <= taps.reach; ++j) {
    row[-j] = row[j];
    row[size - 1 + j] = row[size - 1 - j];
  }
  for (int64_t x = 0; x < size; x += A::kLanes) {
    const auto at = [&](int64_t j, int64_t k) { return row + (k == 0 ? -j : j); };
    store(out + x, A::lowered(taps.sum(at, x)));
  }
}

// Of the first `planes` planes, the others are like the first.
template <typename A>
void blur_and_write(const Taps<A>& taps, const typename A::Element* from, int64_t plane,
                    int64_t planes, int64_t size, const Target& target, Arena arena) {
  using E = typename A::Element;
  const int64_t apart = size + A::kLanes;
  const E** rows = arena.take<const E*>(2 * (taps.reach + 1));
  E* wide = arena.take<E>(size + 2 * taps.reach + A::kLanes);
  E* out = arena.take<E>(planes * apart);
  for (int64_t y = 0; y < size; ++y) {
    for (int64_t c = 0; c < planes; ++c) {
      blur_row(taps, from + c * plane, y, size, rows, wide, out + c * apart);
      solarise<A>(target.threshold, out + c * apart, size);
    }
    write<A>(target, out, planes == target.channels ? apart : 0, y * size, size);
  }
}

}  // namespace fastcl::FASTCL_SIMD
