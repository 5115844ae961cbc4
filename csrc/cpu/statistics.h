// What the forward of a contrast makes of the sums over a row or a column.
#pragma once

#include <algorithm>

#include "cpu/contrast.h"

namespace fastcl::cpu {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// log(1 + exp(x)).
inline double softplus(double x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

// The sum of term(i) over [begin, end) in pairs: its rounding grows with the logarithm of the
// length.
template <typename Term>
double sum_of(int64_t begin, int64_t end, const Term& term) {
  if (end - begin > 8) {
    const int64_t middle = begin + (end - begin) / 2;
    return sum_of(begin, middle, term) + sum_of(middle, end, term);
  }
  double sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += term(i);
  return sum;
}

struct Statistics {
  double loss, lse, positive, count;
};

// sums of one row or column; extra is the logit of one more positive, or null.
inline Statistics finish(double negative, double positive, double logit, double count, double shift,
                         bool positives_in, const double* extra) {
  const double away = shift + std::log(negative);  // log-sum-exp of the negatives
  if (extra != nullptr || (positives_in && count == 1)) {
    const double at = extra != nullptr ? *extra : logit;
    const double loss = at == kInfinity ? kNaN : softplus(away - at);
    // Without any weight on the other side, loss is 0 or infinite and so is no part of lse.
    return {loss, at > away ? at + loss : away + softplus(at - away), at, 1};
  }
  const double mean = count > 0 ? logit / count : 0;
  const double lse = positives_in ? shift + std::log(negative + positive) : away;
  return {lse - mean, lse, mean, count};
}

template <typename T>
class SumsBuffer {
 public:
  SumsBuffer(int64_t size, int64_t slots) : size_(size), slots_(slots), all_(4 * size * slots) {
    if (size > 0) most_ = Buffer<T>(size * slots);
    clear();
  }

  void clear() {
    std::fill_n(all_.data(), 4 * size_ * slots_, 0.0);
    if (size_ > 0) std::fill_n(most_.data(), size_ * slots_, -std::numeric_limits<T>::infinity());
  }

  Sums<T> slot(int64_t slot) const {
    if (size_ == 0) return {};
    double* at = all_.data() + 4 * size_ * slot;
    return {at, at + size_, at + 2 * size_, at + 3 * size_, most_.data() + size_ * slot};
  }

  // All slots into the first, in order. Where every sum has its own shift, to the largest one.
  void combine(bool online, double scale) {
    const Sums<T> to = slot(0);
    for (int64_t s = 1; s < slots_; ++s) {
      const Sums<T> from = slot(s);
      for (int64_t i = 0; i < size_; ++i) {
        const double most = std::max(to.most[i], from.most[i]);
        const bool scaled = online && most > -kInfinity;
        const double a = scaled ? std::exp(scale * (to.most[i] - most)) : 1;
        const double b = scaled ? std::exp(scale * (from.most[i] - most)) : 1;
        to.negative[i] = to.negative[i] * a + from.negative[i] * b;
        to.positive[i] = to.positive[i] * a + from.positive[i] * b;
        to.logit[i] += from.logit[i];
        to.count[i] += from.count[i];
        to.most[i] = static_cast<T>(most);
      }
    }
  }

 private:
  int64_t size_, slots_;
  Buffer<double> all_;
  Buffer<T> most_;
};

template <typename T>
double longest(const Problem& x, const Rows& rows, int64_t size) {
  const Buffer<T> lengths(size);
  row_lengths<T>(x.dtype, rows, x.d, lengths.data());
  double most = 0;
  for (int64_t i = 0; i < size; ++i) most = std::max<double>(most, lengths[i]);
  return most;
}

// No logit is larger, but for those of NaN rows, which stay NaN under any shift.
template <typename T>
double largest_logit(const Divided<T>& x) {
  if (x.unit) return x.scale;
  const double q = x.q_lengths != nullptr ? 1 : longest<T>(x, x.q, x.n);
  if (x.symmetric) return x.scale * q * q;
  return x.scale * q * (x.k_lengths != nullptr ? 1 : longest<T>(x, x.k, x.m));
}

// One shift for all logits, in units of log 2, or that of the largest similarity of each sum.
template <typename T>
struct Shift {
  bool online;
  T fixed;
  double scale;

  explicit Shift(const Divided<T>& x) : fixed(0), scale(x.scale) {
    const double largest = largest_logit<T>(x);
    // Of rows of any length most logits are far below the largest possible: beyond twice the span
    // sums would be damaged, and the pass with one shift be lost.
    online = !reducible(x.scale) || !formed(largest) || !(x.unit || largest < 2 * kSpan<T> - 30);
    const double above = std::max(0.0, largest - kSpan<T>);
    if (!online) fixed = static_cast<T>(std::ceil(above * kLog2E));
  }

  // That of a sum, in natural-log units.
  double of(const Sums<T>& sums, int64_t i) const {
    if (!online) return kLn2 * fixed;
    return sums.most[i] == -kInfinity ? 0 : scale * sums.most[i];
  }
};

// Adds a tile to the sums; it is written over only where keep.
template <typename T>
void fold(Tiles<T>& tiles, const Tile<T>& tile, const Pair& pair, const Shift<T>& shift,
          bool positives_in, const Sums<T>& rows, const Sums<T>& cols, bool keep) {
  const Simd<T>& simd = cpu::simd<T>();
  if (shift.online) {
    simd.fold_online(tile, tiles.match(pair), tiles.scale, positives_in, rows, cols);
  } else if (tiles.may_match(pair)) {
    simd.fold_matching(tile, tiles.match(pair), tiles.scale, shift.fixed, rows, cols, keep);
  } else {
    simd.fold(tile, tiles.scale, shift.fixed, rows, cols, keep);
  }
}

// Whether one of the sums over `others` terms each overflowed, or is so small that terms which
// underflowed would show. NaN is no damage: it stays NaN.
template <typename T>
bool damaged(const Sums<T>& sums, int64_t size, int64_t others, bool positives_in) {
  constexpr double least =
      static_cast<double>(std::numeric_limits<T>::min()) / std::numeric_limits<T>::epsilon();
  for (int64_t i = 0; i < size; ++i) {
    const int64_t terms = others - (positives_in ? 0 : static_cast<int64_t>(sums.count[i]));
    const double total = sums.negative[i] + (positives_in ? sums.positive[i] : 0);
    if (terms > 0 && (total == kInfinity || total < least * terms)) return true;
  }
  return false;
}

// Statistics of `size` rows or columns to [4, stride]; extra [size] and lse [size] may be null.
template <typename T>
void put(const Sums<T>& sums, int64_t size, const Shift<T>& shift, double scale, bool positives_in,
         const T* extra, T* to, int64_t stride, double* lse) {
  for (int64_t i = 0; i < size; ++i) {
    const double added = extra != nullptr ? scale * extra[i] : 0;
    const Statistics found =
        finish(sums.negative[i], sums.positive[i], scale * sums.logit[i], sums.count[i],
               shift.of(sums, i), positives_in, extra != nullptr ? &added : nullptr);
    if (lse != nullptr) lse[i] = found.lse;
    const T loss = static_cast<T>(found.loss), positive = static_cast<T>(found.positive);
    // One rounding of an lse of 100 changes every p by 4e-6 in float: the rest is kept too.
    const double rest = found.lse - loss - positive;
    to[i] = loss;
    to[stride + i] = std::isfinite(rest) ? static_cast<T>(rest) : T(0);
    to[2 * stride + i] = positive;
    to[3 * stride + i] = static_cast<T>(found.count);
  }
}

}  // namespace fastcl::cpu
