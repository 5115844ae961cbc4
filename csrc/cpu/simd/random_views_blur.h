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
};

// Sums of n vectors with their neighbours, side by side, as each waits for its own; end(sum) is
// what is kept of them.
template <int n, typename A, typename N, typename E>
[[gnu::always_inline]] inline void blur_vectors(const Taps<A>& taps, const N& near, int64_t x,
                                                typename A::Element* to, const E& end) {
  using V = typename A::Vector;
  const auto from = near.template of<n>(x);
  const V first = A::splat(taps.start), middle = A::splat(taps.weight[0]);
  V total[n];
  for (int k = 0; k < n; ++k) total[k] = first + A::share(from.middle(k), middle);
  for (int64_t j = 1; j <= taps.reach; ++j) {
    const V share = A::splat(taps.weight[j]);
    for (int k = 0; k < n; ++k) total[k] += A::share(from.both(j, k), share);
  }
  for (int k = 0; k < n; ++k) store(to + x + k * A::kLanes, end(total[k]));
}

// Of `count` numbers, or as many more as fill a vector.
template <typename A, typename N, typename E>
[[gnu::noinline]] void blur_row(const Taps<A> taps, const N near, int64_t count,
                                typename A::Element* to, const E end) {
  int64_t x = 0;
  for (; x + 3 * A::kLanes < count; x += 4 * A::kLanes) blur_vectors<4>(taps, near, x, to, end);
  if (x + 2 * A::kLanes < count) return blur_vectors<3>(taps, near, x, to, end);
  if (x + A::kLanes < count) return blur_vectors<2>(taps, near, x, to, end);
  if (x < count) blur_vectors<1>(taps, near, x, to, end);
}

// Neighbours so many elements apart.
template <typename A>
struct Spaced {
  const typename A::Element* from;
  int64_t apart;

  template <int n>
  Spaced of(int64_t x) const {
    return {from + x, apart};
  }
  typename A::Vector middle(int k) const { return at(0, k); }
  typename A::Vector both(int64_t j, int k) const { return at(-j, k) + at(j, k); }
  typename A::Vector at(int64_t j, int k) const {
    return load<typename A::Vector>(from + j * apart + k * A::kLanes);
  }
};

// Neighbours in rows of their own, [-reach, reach].
template <typename A>
struct InRows {
  const typename A::Element* const* rows;
  int64_t x;

  template <int n>
  InRows of(int64_t to) const {
    return {rows, to};
  }
  typename A::Vector middle(int k) const { return at(0, k); }
  typename A::Vector both(int64_t j, int k) const { return at(-j, k) + at(j, k); }
  typename A::Vector at(int64_t j, int k) const {
    return load<typename A::Vector>(rows[j] + x + k * A::kLanes);
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

template <typename A>
void blur_along(const Taps<A>& taps, const typename A::Element* row, int64_t size,
                typename A::Element* to) {
  blur_row(taps, Spaced<A>{row, 1}, size, to, [](auto sum) { return A::lowered(sum); });
}

#if defined(__AVX512BW__)
struct Run {
  uint16_t number[2 * Fixed::kLanes];
  constexpr Run() : number() {
    for (int i = 0; i < 2 * Fixed::kLanes; ++i) number[i] = static_cast<uint16_t>(i);
  }
};

// Neighbours along a row, at most a vector away, those after it picked out of registers: a load of
// what lies across two lines of the cache takes as long as two.
template <int n>
struct Picked {
  const uint16_t* from;
  Words x[n + 1];

  explicit Picked(const uint16_t* from) : from(from) {
    for (int k = 0; k <= n; ++k) x[k] = load<Words>(from + k * Fixed::kLanes);
  }
  Words middle(int k) const { return x[k]; }
  Words both(int64_t j, int k) const {
    alignas(64) static constexpr Run kRun;
    const Words before = load<Words>(from + k * Fixed::kLanes - j);
    return before + picked(x[k], load<Words>(kRun.number + j), x[k + 1]);
  }
};

struct PickedAlong {
  const uint16_t* row;
  template <int n>
  Picked<n> of(int64_t x) const {
    return Picked<n>(row + x);
  }
};

inline void blur_along(const Taps<Fixed>& taps, const uint16_t* row, int64_t size, uint16_t* to) {
  const auto end = [](Words sum) { return Fixed::lowered(sum); };
  // A permute of two registers is one micro-operation at AMD and three at Intel (uops.info).
  static const bool picks = __builtin_cpu_is("amd");
  if (picks && taps.reach <= Fixed::kLanes) return blur_row(taps, PickedAlong{row}, size, to, end);
  blur_row(taps, Spaced<Fixed>{row, 1}, size, to, end);
}
#endif

inline int64_t reflected(int64_t i, int64_t size) {
  return i < 0 ? -i : i >= size ? 2 * size - 2 - i : i;
}

// Rows at a time: what one pass has stored is then in the cache, and no longer on its way there,
// when the next one loads it at other places.
constexpr int64_t kBlurRows = 8;

// Row y of a plane down the columns, at `row`.
template <typename A>
void blur_down(const Taps<A>& taps, const typename A::Element* plane, int64_t y, int64_t size,
               const typename A::Element** rows, typename A::Element* row) {
  const auto raised = A::splat(taps.raised);
  const auto end = [=](auto sum) { return sum + raised; };
  if (y >= taps.reach && y + taps.reach < size) {
    return blur_row(taps, Spaced<A>{plane + y * size, size}, size, row, end);
  }
  for (int64_t j = -taps.reach; j <= taps.reach; ++j) {
    rows[taps.reach + j] = plane + reflected(y + j, size) * size;
  }
  blur_row(taps, InRows<A>{rows + taps.reach, 0}, size, row, end);
}

// Rows y .. y + count of a plane, down the columns and then along them, to rows of `out` that are
// so many elements apart, each with room for a vector more; done(row, pixels) takes one after the
// other. wide has room for the rows with both ends.
template <typename A, typename F>
void blur_rows(const Taps<A>& taps, const typename A::Element* plane, int64_t y, int64_t count,
               int64_t size, const typename A::Element** rows, typename A::Element* wide,
               typename A::Element* out, int64_t next, const F& done) {
  const int64_t margin = (taps.reach + A::kLanes - 1) / A::kLanes * A::kLanes;
  const int64_t apart = (size + A::kLanes - 1) / A::kLanes * A::kLanes + 2 * margin;
  for (int64_t i = 0; i < count; ++i) {
    typename A::Element* const row = wide + i * apart + margin;
    blur_down(taps, plane, y + i, size, rows, row);
    for (int64_t j = 1; j <= taps.reach; ++j) {
      row[-j] = row[j];
      row[size - 1 + j] = row[size - 1 - j];
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    blur_along(taps, wide + i * apart + margin, size, out + i * next);
    done(y + i, out + i * next);
  }
}

// Of the first `planes` planes, the others are like the first. Every row of a plane is written
// before the next is made: memory takes it meanwhile; those of channels side by side wait for each
// other. need(pixels) sees to it that so many are there.
template <typename A, typename F>
void blur_and_write(const Taps<A>& taps, const typename A::Element* from, int64_t plane,
                    int64_t planes, int64_t size, const Target& target, Arena arena,
                    const F& need) {
  using E = typename A::Element;
  const E** rows = arena.take<const E*>(2 * taps.reach + 1);
  E* wide = arena.take<E>(kBlurRows * (size + 2 * taps.reach + 3 * A::kLanes));
  const bool wait = target.channels_last;
  const int64_t apart = kBlurRows * size;
  E* out = arena.take<E>((wait ? planes * apart : size) + A::kLanes);
  for (int64_t y = 0; y < size; y += kBlurRows) {
    const int64_t count = size - y < kBlurRows ? size - y : kBlurRows;
    need((y + count + taps.reach) * size);
    for (int64_t c = 0; c < planes; ++c) {
      const int64_t last = planes == target.channels ? c + 1 : target.channels;
      E* const finished = out + (wait ? c * apart : 0);
      const auto finish = [&](int64_t row, E* x) {
        solarise<A>(target.threshold, x, size);
        for (int64_t k = c; !wait && k < last; ++k) write_channel(target, x, k, row * size, size);
      };
      blur_rows(taps, from + c * plane, y, count, size, rows, wide, finished, wait ? size : 0,
                finish);
    }
    const int64_t channel = planes == target.channels ? apart : 0;
    if (wait) write_pixels(target, out, channel, y * size, count * size);
  }
}

}  // namespace fastcl::FASTCL_SIMD
