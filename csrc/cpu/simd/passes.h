// Which columns match, in vectors, and the passes that the table of an instruction set lists.
#pragma once

#include "cpu/simd.h"
#include "cpu/simd/vector.h"

namespace fastcl::FASTCL_SIMD {

using cpu::Block;
using cpu::kPadding;
using cpu::Lines;
using cpu::Match;
using cpu::NestedWeights;
using cpu::Scale;
using cpu::Sums;
using cpu::Tile;
using cpu::Weights;

// All ones in the lanes of the positives (same) and of everything else but the row itself.
template <typename T>
struct Lane {
  Integer<T> same, negative;

  Lane(const Match<T>& match, int64_t i, int64_t j) {
    const Integer<T> column = iota<T>() + static_cast<Code<T>>(j);
    const Integer<T> self = column == static_cast<Code<T>>(i + match.self);
    const Integer<T> equal = load<Integer<T>>(match.col + j) == match.row[i];
    same = equal & ~self;
    negative = ~(equal | self);
  }
};

// x where the mask is set, else zero, also for a NaN.
template <typename T>
inline Vector<T> where(Integer<T> mask, Vector<T> x) {
  return (Vector<T>)(mask & (Integer<T>)x);
}

// 2^(scale (s - most)): the difference of two similarities is exact where they are close, however
// large they are.
template <typename T>
inline Vector<T> shifted(Vector<T> s, const Scale<T>& scale, Vector<T> most) {
  const Vector<T> away = s - most;
  return exp2<T>(away * scale.high + away * scale.low);
}

// Raises the maximum to `most` and scales what was summed below the old one; returns a maximum that
// is never minus infinity.
template <typename T>
inline T raise(Sums<T> sums, int64_t i, T most, const Scale<T>& scale) {
  const T old = sums.most[i];
  if (most > old) {
    const double away = static_cast<double>(old) - most;
    const double factor = __builtin_exp2(away * scale.high + away * scale.low);
    sums.negative[i] *= factor;
    sums.positive[i] *= factor;
    sums.most[i] = most;
  }
  return sums.most[i] == -__builtin_inf() ? T(0) : sums.most[i];
}

// exp(logit - lse) from the difference of similarities. In the denominator it is 1 at most. A
// positive outside may be far above lse; it has weight zero, which would make a NaN of an infinite
// power.
template <typename T>
inline Vector<T> probability(Vector<T> s, const Scale<T>& scale, Vector<T> pivot, Vector<T> rest) {
  const Vector<T> away = s - pivot;
  return exp2<T>(at_most(away * scale.high + (away * scale.low - rest), Vector<T>{}));
}

template <typename T>
void fold(Tile<T>, Scale<T>, T shift, Sums<T> rows, Sums<T> cols, bool keep);
template <typename T>
void fold_matching(Tile<T>, Match<T>, Scale<T>, T shift, Sums<T> rows, Sums<T> cols, bool keep);
template <typename T>
void fold_online(Tile<T>, Match<T>, Scale<T>, bool positives_in, Sums<T> rows, Sums<T> cols);
template <typename T>
void above(Tile<T>, Match<T>, const T* row_pivot, const T* col_pivot, int64_t* rows, int64_t* cols);
template <typename T>
void leave_out(Tile<T>, Match<T>, Tile<T> judge, const T* limit);
template <typename T>
void gradient(Tile<T>, Scale<T>, T shift, Weights<T> rows, Weights<T> cols);
template <typename T>
void gradient_matching(Tile<T>, Match<T>, Scale<T>, T shift, Weights<T> rows, Weights<T> cols);
template <typename T>
void gradient_online(Tile<T>, Match<T>, Scale<T>, Weights<T> rows, Weights<T> cols);
template <typename T>
void logistic(Tile<T>, Match<T>, Scale<T>, T bias, T factor, bool positives_in, double* sums);
template <typename T>
void nested_fold(Tile<T> products, const T* row, const T* col, Scale<T>, int64_t self, Sums<T> rows,
                 T* to);
template <typename T>
void nested_gradient(Tile<T>, const T* wider, NestedWeights<T>, Scale<T>, int64_t self);
template <typename T>
void best_columns(Tile<T>, int32_t first, T* best, int32_t* at);
template <typename T>
void add_rows(const Lines<T>& from, const int32_t* from_at, int64_t count, int64_t d, T weight,
              T* to, const int32_t* to_at);
template <typename T>
void product(const T* a, int64_t row, int64_t step, int64_t rows, const T* b, int64_t depth,
             int64_t width, const T* factor, const T* col_factor, T* out, int64_t stride,
             bool accumulate, bool padded);
template <typename T>
void copy_rows(const Block<T>&, int64_t from, int64_t cols, T* to);
template <typename T>
void pack_rows(const Block<T>&, int64_t from, int64_t cols, T* to);
template <typename T>
void pack_columns(const Block<T>&, int64_t from, int64_t cols, T* to);

void pack_pair_columns(const void* const* rows, int64_t size, int64_t from, int64_t pairs,
                       uint32_t* to);
void pack_pair_rows(const void* const* rows, int64_t size, int64_t from, int64_t cols,
                    uint32_t* to);
void narrow_rows(Tile<float>, const float* factor, uint32_t* to);
void narrow_columns(Tile<float>, const float* factor, uint32_t* mixed, uint32_t* to);

template <typename T>
void unit_rows(Dtype, const void* x, int64_t rows, int64_t d, void* y, T* lengths);
template <typename T>
void unit_rows_gradient(Dtype, const void* grad, const void* x, const T* lengths, int64_t rows,
                        int64_t d, void* dx);
template <typename T>
void row_lengths(const Block<T>&, int64_t d, T* lengths);
template <typename T>
void project(const Block<T>& x, const T* lengths, int64_t d, T* grad, double* dots);

}  // namespace fastcl::FASTCL_SIMD
