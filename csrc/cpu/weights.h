// What the gradient of a contrast weighs its logits with.
#pragma once

#include <algorithm>

#include "cpu/contrast.h"

namespace fastcl::cpu {

// The gradient of one side: n rows, or m columns, and what the forward said of them.
template <typename T>
struct Side {
  const T* grad_loss;      // or null
  const T* grad_positive;  // or null
  const T* statistics;     // [4, size]
  int64_t size;

  double loss(int64_t i) const { return statistics[i]; }
  double lse(int64_t i) const { return lse_of(statistics, size, i); }
  double count(int64_t i) const { return statistics[3 * size + i]; }
};

struct Spread {
  double least = std::numeric_limits<double>::infinity(), most = -least;

  template <typename T>
  void add(const Side<T>& side, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double lse = side.lse(i);
      if (!std::isfinite(lse)) continue;
      least = std::min(least, lse);
      most = std::max(most, lse);
    }
  }
};

// How the powers of a gradient are shifted, in units of log 2.
struct Common {
  bool one;      // all by the same, else each row and column by its lse
  double shift;  // 0 where not one

  // The largest lse becomes the shift: no power is above one, and at the other end only p below
  // exp(-27) underflow where the span is that of float.
  template <typename T>
  static Common of(const Spread& spread, double scale) {
    const double top = std::isfinite(spread.most) ? std::ceil(spread.most * kLog2E) : 0;
    const bool one =
        !(spread.most - spread.least > kSpan<T> - 14) && formed(top) && reducible(scale);
    return {one, one ? top : 0};
  }
};

template <typename T>
class WeightsBuffer {
 public:
  explicit WeightsBuffer(int64_t size) : size_(size), all_(5 * (size + kPadding), T(0)) {}

  Weights<T> view() const {
    T* at = all_.data();
    const int64_t stride = size_ + kPadding;
    return {at, at + stride, at + 2 * stride, at + 3 * stride, at + 4 * stride};
  }

  // Adds the weights of rows begin .. end of a side.
  void add(const Side<T>& side, int64_t begin, int64_t end, const Problem& x,
           const Common& common) {
    const Weights<T> to = view();
    const bool in = x.positives_in && !x.has_own();
    for (int64_t i = begin; i < end; ++i) {
      const double g = side.grad_loss != nullptr ? side.grad_loss[i] : 0;
      const double h = side.grad_positive != nullptr ? side.grad_positive[i] : 0;
      const double lse = side.lse(i), count = side.count(i);
      const bool empty = lse == -std::numeric_limits<double>::infinity();
      double p =
          empty ? 0 : g * x.scale * (common.one ? std::exp2(common.shift - lse * kLog2E) : 1);
      if (std::isinf(lse) && !empty) p = lse - lse;  // NaN
      // Of a lone positive, p - 1 is known without cancellation.
      const bool lone = in && count == 1;
      const double apart =
          lone ? g * std::expm1(-side.loss(i)) + h : (h - g) / std::max(count, 1.0);
      to.in_negative[i] += static_cast<T>(p);
      to.in_positive[i] += static_cast<T>(in && !lone ? p : 0);
      to.at_positive[i] += static_cast<T>(x.has_own() ? 0 : apart * x.scale);
      const Pivot<T> pivot(empty ? 0 : lse, x.scale);
      to.pivot[i] = pivot.s;
      to.rest[i] = pivot.rest;
    }
  }

 private:
  int64_t size_;
  Buffer<T> all_;
};

// The gradient of a tile over it.
template <typename T>
void weigh(Tiles<T>& tiles, const Tile<T>& tile, const Pair& pair, bool one_shift, T shift,
           const Weights<T>& rows, const Weights<T>& cols) {
  const Simd<T>& simd = cpu::simd<T>();
  if (!one_shift) {
    simd.gradient_online(tile, tiles.match(pair), tiles.scale, rows, cols);
  } else if (tiles.may_match(pair)) {
    simd.gradient_matching(tile, tiles.match(pair), tiles.scale, shift, rows, cols);
  } else {
    simd.gradient(tile, tiles.scale, shift, rows, cols);
  }
}

}  // namespace fastcl::cpu
