// The two sides of a contrast at nested widths: how long rows are at each of them, and what that
// adds to gradients.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/statistics.h"

namespace fastcl::cpu {

// What one side of a width has for each of its rows, [n].
template <typename T>
struct Lengths {
  Buffer<T> factor, inverse;  // one over the length; inverse is 0 where that has no gradient
  Buffer<double> slope;       // sum of (p - y) times the cosine

  explicit Lengths(int64_t n) : factor(n, T(0)), inverse(n, T(0)), slope(n, 0.0) {}
};

template <typename T>
struct Width {
  Features part;  // what it has beside the features of the narrower one
  double weight;
  Lengths<T> q, k;
  SumsBuffer<T> sums;               // of the rows of a chunk, or of all
  Buffer<T> row, own, pivot, rest;  // [n] see NestedWeights
  Buffer<double> losses;            // [n]
  Buffer<double> in_slots;          // [slots, rows of a chunk, or all] of the slope of q

  Width(Features part, double weight, int64_t n, int64_t rows, int64_t slots)
      : part(part),
        weight(weight),
        q(n),
        k(n),
        sums(rows, slots),
        row(n),
        own(n),
        pivot(n),
        rest(n),
        losses(n),
        in_slots(slots * rows, 0.0) {}
};

template <typename T>
class NestedSide {
 public:
  NestedSide(Dtype dtype, const Rows& rows, Lengths<T> Width<T>::* side, int64_t n, int64_t d)
      : dtype_(dtype), rows_(dtype, rows, nullptr, n, d, false), side_(side), n_(n), d_(d) {}

  // The lengths of the rows at every width.
  void measure(std::vector<Width<T>>& widths, int64_t workers) const;
  // What a longer row changes, taken off its gradient: of every width a multiple of its features.
  void project(const std::vector<Width<T>>& widths, double factor, int64_t workers, T* grad) const;

 private:
  static constexpr int64_t kSome = 16;  // rows at once

  const Dtype dtype_;
  const RowTable<T> rows_;
  Lengths<T> Width<T>::* const side_;
  const int64_t n_, d_;
};

template <typename T>
void NestedSide<T>::measure(std::vector<Width<T>>& widths, int64_t workers) const {
  run_items(ceil_div(n_, kSome), workers, [&](int64_t item, int64_t) {
    const int64_t first = item * kSome, size = std::min(kSome, n_ - first);
    const void* const* rows = rows_.plain(first, size).rows;
    double square[kSome] = {};
    for (Width<T>& w : widths) {
      const Lengths<T>& to = w.*side_;
      const void* begin[kSome];
      T length[kSome];
      for (int64_t i = 0; i < size; ++i) {
        begin[i] = static_cast<const char*>(rows[i]) + w.part.begin * size_of(dtype_);
      }
      simd<T>().row_lengths({dtype_, begin, nullptr, size}, w.part.end - w.part.begin, length);
      for (int64_t i = 0; i < size; ++i) {
        square[i] += double{length[i]} * length[i];
        const double whole = std::sqrt(square[i]);
        const bool none = whole < kShortest;  // a NaN passes on
        to.factor[first + i] = static_cast<T>(1 / (none ? kShortest : whole));
        // Of one feature the cosine is a sign, which has no gradient.
        to.inverse[first + i] = static_cast<T>(none || w.part.end == 1 ? 0 : 1 / whole);
      }
    }
  });
}

template <typename T>
void NestedSide<T>::project(const std::vector<Width<T>>& widths, double factor, int64_t workers,
                            T* grad) const {
  run_items(ceil_div(n_, kSome), workers, [&](int64_t item, int64_t) {
    const Buffer<T> row(d_);
    for (int64_t i = item * kSome; i < std::min(n_, (item + 1) * kSome); ++i) {
      simd<T>().copy_rows(rows_.plain(i, 1), 0, d_, row.data());
      double multiple = 0;
      for (auto w = widths.rbegin(); w != widths.rend(); ++w) {
        const Lengths<T>& x = (*w).*side_;
        multiple += w->weight * factor * x.slope[i] * x.inverse[i] * x.inverse[i];
        const T times = static_cast<T>(multiple);
        T* const to = grad + i * d_;
        for (int64_t c = w->part.begin; c < w->part.end; ++c) to[c] -= times * row[c];
      }
    }
  });
}

}  // namespace fastcl::cpu
