// The colours of a view, operation by operation over strips that stay in the first cache: fused in
// registers they wait for each other. The contrast needs the mean of the whole view first, so what
// comes before it is a pass of its own.
#pragma once

#include "cpu/simd/random_views_arithmetic.h"
#include "random_views.h"

namespace fastcl::FASTCL_SIMD {

// Three channels of so many pixels, whole vectors.
template <typename A>
struct Strip {
  typename A::Element* channel[3];
  int64_t count;

  // f of three vectors, in place; every channel is kept in the place of the one `turned` further.
  template <typename F>
  void each(const F& f, int turned = 0) const {
    using V = typename A::Vector;
    typename A::Element* const to[] = {channel[turned], channel[(turned + 1) % 3],
                                       channel[(turned + 2) % 3]};
    for (int64_t i = 0; i < count; i += A::kLanes) {
      V r = load<V>(channel[0] + i), g = load<V>(channel[1] + i), b = load<V>(channel[2] + i);
      f(r, g, b);
      store(to[0] + i, r);
      store(to[1] + i, g);
      store(to[2] + i, b);
    }
  }
};

template <typename A>
void brightness(const Strip<A>& strip, float factor) {
  const auto f = A::factor(factor);
  strip.each([&](auto& r, auto& g, auto& b) {
    r = A::bounded(A::times(r, f));
    g = A::bounded(A::times(g, f));
    b = A::bounded(A::times(b, f));
  });
}

// x * factor + mean * (1 - factor), and the same with the grey of every pixel.
template <typename A>
void contrast(const Strip<A>& strip, float factor, float mean) {
  const auto f = A::factor(factor);
  if (factor <= 1) {
    const auto rest = A::value(mean * (1 - factor));
    return strip.each([&](auto& r, auto& g, auto& b) {
      r = A::mixed(A::times(r, f), rest);
      g = A::mixed(A::times(g, f), rest);
      b = A::mixed(A::times(b, f), rest);
    });
  }
  const auto rest = A::value(mean * (factor - 1));
  strip.each([&](auto& r, auto& g, auto& b) {
    r = A::parted(A::times(r, f), rest);
    g = A::parted(A::times(g, f), rest);
    b = A::parted(A::times(b, f), rest);
  });
}

template <typename A>
void saturation(const Strip<A>& strip, float factor) {
  const auto f = A::factor(factor);
  if (factor <= 1) {
    const auto rest = A::factor(1 - factor);
    return strip.each([&](auto& r, auto& g, auto& b) {
      const auto grey = A::times_grey(A::grey(r, g, b), rest);
      r = A::mixed(A::times(r, f), grey);
      g = A::mixed(A::times(g, f), grey);
      b = A::mixed(A::times(b, f), grey);
    });
  }
  const auto rest = A::factor(factor - 1);
  strip.each([&](auto& r, auto& g, auto& b) {
    const auto grey = A::times_grey(A::grey(r, g, b), rest);
    r = A::parted(A::times(r, f), grey);
    g = A::parted(A::times(g, f), grey);
    b = A::parted(A::times(b, f), grey);
  });
}

// Of less than a sixth of a turn either way: the middle channel moves by that share of the chroma,
// up where the order of the channels is an even one; what spills over goes down from the largest or
// up from the smallest.
template <typename A, bool kForward>
void small_hue(const Strip<A>& strip, float sixths, int turned) {
  using V = typename A::Vector;
  using M = typename A::Mask;
  const V share = A::factor(sixths);
  strip.each(
      [&](V& r, V& g, V& b) {
        const V low = least(r, g), high = most(r, g);
        const V largest = most(high, b), smallest = least(low, b);
        const V middle = most(low, least(high, b));
        // One order among equals too: red, green, blue.
        const M rg = A::at_or_above(r, g), gb = A::at_or_above(g, b), rb = A::at_or_above(r, b);
        const M even = rg ^ gb ^ rb, up = kForward ? even : ~even;
        const V chroma = largest - smallest, move = A::times(chroma, share);
        const V raised = middle + move, over = A::chosen(up, above(raised, largest), V{});
        const V under = A::chosen(up, V{}, above(smallest + move, middle));
        const V moved = A::chosen(up, raised - over, middle + under - move);
        const V top = largest - over, bottom = smallest + under;
        const auto placed = [&](M is_largest, M is_smallest) {
          return A::chosen(is_largest, top, A::chosen(is_smallest, bottom, moved));
        };
        r = placed(rg & rb, ~(rg | rb));
        g = placed(~rg & gb, rg & ~gb);
        b = placed(~(rb | gb), rb & gb);
      },
      turned);
}

// A third of a turn hands every channel to the next.
template <typename A>
void hue(const Strip<A>& strip, float turns) {
  const float sixths = 6 * turns;
  const int thirds = sixths > 1 ? 1 : sixths < -1 ? -1 : 0;
  const float rest = sixths - 2 * static_cast<float>(thirds);
  const int turned = (thirds + 3) % 3;
  if (rest >= 0) return small_hue<A, true>(strip, rest, turned);
  small_hue<A, false>(strip, -rest, turned);
}

// Sums of the grey of `count` pixels, the first of a strip.
inline double grey_sum(const Strip<Fixed>& strip, int64_t count) {
  const auto grey = [&](int64_t i) {
    return Fixed::grey(load<Words>(strip.channel[0] + i), load<Words>(strip.channel[1] + i),
                       load<Words>(strip.channel[2] + i));
  };
  Doubles sums{};
  int64_t i = 0;
  for (; i + Fixed::kLanes <= count; i += Fixed::kLanes) {
    const auto pairs = (Doubles)grey(i);
    sums += (pairs & 0xFFFF) + (pairs >> 16);
  }
  uint64_t total = 0;
  for (int l = 0; l < kViewBytes / 4; ++l) total += sums[l];
  if (i < count) {
    const Words rest = grey(i);
    for (int64_t l = 0; l < count - i; ++l) total += rest[l];
  }
  return static_cast<double>(total) / (2 * Fixed::kOne);
}

// In the same order in every instruction set.
inline double grey_sum(const Strip<Float>& strip, int64_t count) {
  double sums[16] = {}, total = 0;
  for (int64_t i = 0; i < count; ++i) {
    sums[i % 16] +=
        strip.channel[0][i] * 0.2989f + strip.channel[1][i] * 0.587f + strip.channel[2][i] * 0.114f;
  }
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace fastcl::FASTCL_SIMD
