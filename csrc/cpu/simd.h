// What is compiled once per instruction set: passes over one tile of similarities while it is in
// cache. `simd<T>()` picks the set when it runs.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/instruction_set.h"
#include "kernels.h"

namespace fastcl::cpu {

// Tiles and everything along their columns may be read and written this far beyond the end.
constexpr int64_t kPadding = kMostLanes;
// No tile is larger: the passes keep what belongs to its columns and rows on the stack.
constexpr int64_t kMaxRows = 256;
constexpr int64_t kMaxColumns = 1024;

// Shorter rows are divided by this much, like torch's normalize.
constexpr double kShortest = 1e-12;

template <typename T>
using Code = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

// Raw similarities <q_i, k_j>. The padding behind each row holds minus infinity, which no sum
// notices.
template <typename T>
struct Tile {
  T* s;  // [rows, stride]
  int64_t rows, cols, stride;
};

// Which columns of a tile are positives of which rows, and which are the rows themselves.
template <typename T>
struct Match {
  const Code<T>* row;  // [rows] no less than 0
  const Code<T>* col;  // [cols] -1 in the padding
  int64_t self;        // row i is column i + self, if that lies in the tile
};

// Rows to be multiplied, wherever they lie.
template <typename T>
struct Block {
  Dtype dtype;
  const void* const* rows;  // [size] where each row begins
  const T* factors;         // [size] what each row is multiplied with, or null
  int64_t size;
};

// Rows of width d that lie end to end.
template <typename T>
struct Lines {
  Dtype dtype;
  const void* data;
  const T* factors;  // what each row is multiplied with, or null
};

// What a similarity is multiplied with to be a logit in units of log 2, as the sum of two: rounded
// to one, it would be another temperature.
template <typename T>
struct Scale {
  T high, low;
};

// Sums over the columns of a row (or the rows of a column) seen so far.
template <typename T>
struct Sums {
  double* negative;  // of exp(s - shift) over the negatives
  double* positive;  // of the same over the positives
  double* logit;     // of s itself over the positives
  double* count;     // positives
  T* most;           // largest s of the denominator, where its logit is the shift

  Sums at(int64_t i) const { return {negative + i, positive + i, logit + i, count + i, most + i}; }
};

// What the gradient of a row (or column) weighs its logits with: p times in_negative, or
// p times in_positive plus at_positive.
template <typename T>
struct Weights {
  T* in_negative;
  T* in_positive;
  T* at_positive;
  T* pivot;  // the similarity whose logit is lse, where p is taken from it
  T* rest;   // what T could not hold of it, as a logit in units of log 2

  Weights at(int64_t i) const {
    return {in_negative + i, in_positive + i, at_positive + i, pivot + i, rest + i};
  }
};

// A width of nested cosines: what p becomes as the gradient of the products of raw rows, and what
// goes to their lengths.
template <typename T>
struct NestedWeights {
  const T* row;    // [rows]
  const T* col;    // [cols]
  const T* own;    // [rows] in the place of p times row on the diagonal
  const T* pivot;  // [rows] as in Weights
  const T* rest;
  // += sums of p times the cosine, the diagonal left out: of the rows [rows] and columns [cols].
  double* row_slope;
  double* col_slope;
};

// Columns are left out where `cols` holds null pointers.
template <typename T>
struct Simd {
  // Sums with one shift for all, one exponential per logit. For tiles without positive and self;
  // keep writes the exponentials over the tile.
  void (*fold)(Tile<T>, Scale<T>, T shift, Sums<T> rows, Sums<T> cols, bool keep);
  // The same for any tile; keep writes the exponentials of the negatives over it.
  void (*fold_matching)(Tile<T>, Match<T>, Scale<T>, T shift, Sums<T> rows, Sums<T> cols,
                        bool keep);
  // Any tile, for logits of any size: the shift is the running maximum of each row and column.
  void (*fold_online)(Tile<T>, Match<T>, Scale<T>, bool positives_in, Sums<T> rows, Sums<T> cols);
  // Negatives above the pivot of their row, or of their column.
  void (*above)(Tile<T>, Match<T>, const T* row_pivot, const T* col_pivot, int64_t* rows,
                int64_t* cols);
  // Minus infinity over the negatives whose entry in judge, a tile of the same shape, is above the
  // limit of their row.
  void (*leave_out)(Tile<T>, Match<T>, Tile<T> judge, const T* limit);
  // Gradient of the tile written over it, with one shift for all.
  void (*gradient)(Tile<T>, Scale<T>, T shift, Weights<T> rows, Weights<T> cols);
  void (*gradient_matching)(Tile<T>, Match<T>, Scale<T>, T shift, Weights<T> rows, Weights<T> cols);
  // The same with lse of each row and each column: two exponentials.
  void (*gradient_online)(Tile<T>, Match<T>, Scale<T>, Weights<T> rows, Weights<T> cols);
  // Logistic loss of a tile and its gradient times factor, written over it; bias in units of log 2.
  // Adds loss, gradient times similarity, and gradient to sums [3].
  void (*logistic)(Tile<T>, Match<T>, Scale<T>, T bias, T factor, bool positives_in, double* sums);
  // Cosines, which are products times factors of rows and columns, to `to`; of each row off the
  // diagonal, where column i + self is row i, it adds the sum of powers below the largest to
  // negative, and the cosine on it to logit; no sums where rows holds null pointers.
  void (*nested_fold)(Tile<T> products, const T* row, const T* col, Scale<T>, int64_t self,
                      Sums<T> rows, T* to);
  // The gradient of a tile of cosines over it, plus that of the wider ones, where not null.
  void (*nested_gradient)(Tile<T>, const T* wider, NestedWeights<T>, Scale<T>, int64_t self);
  // Of each row of a tile whose first column is number `first`: the largest entry and where it is,
  // where above best [rows]; the first of equals, and a NaN for good. Needs no padding.
  void (*best_columns)(Tile<T>, int32_t first, T* best, int32_t* at);
  // to[to_at[l]] += weight from[from_at[l]], rows of width d, for l < count; no numbers: l itself.
  void (*add_rows)(const Lines<T>& from, const int32_t* from_at, int64_t count, int64_t d, T weight,
                   T* to, const int32_t* to_at);
  // out [rows, width] (+)= a b, element i, j times factor[i] * col_factor[j] where not null: a
  // [rows, depth] has its elements `row` and `step` apart, b [depth, width] is packed. Where
  // padded, whole vectors of out may be written.
  void (*product)(const T* a, int64_t row, int64_t step, int64_t rows, const T* b, int64_t depth,
                  int64_t width, const T* factor, const T* col_factor, T* out, int64_t stride,
                  bool accumulate, bool padded);
  // Elements from .. from + cols of the rows, times their factors, as T: end to end; packed as b
  // [size, cols]; packed as b [cols, size], the transpose.
  void (*copy_rows)(const Block<T>&, int64_t from, int64_t cols, T* to);
  void (*pack_rows)(const Block<T>&, int64_t from, int64_t cols, T* to);
  void (*pack_columns)(const Block<T>&, int64_t from, int64_t cols, T* to);
  // Operands of pair products, see pairs.h. Of bfloat16 rows, pairs from .. from + pairs of each:
  // b [pairs, size]; of neighbouring rows, elements from .. from + cols: b [size / 2, cols]. Of a
  // tile times factor [cols], rounded: a [rows, cols / 2]; of its transpose times factor [rows]: a
  // [cols, rows / 2], by way of mixed. The depth is filled up with zeros to whole squares.
  void (*pack_pair_columns)(const void* const* rows, int64_t size, int64_t from, int64_t pairs,
                            uint32_t* to);
  void (*pack_pair_rows)(const void* const* rows, int64_t size, int64_t from, int64_t cols,
                         uint32_t* to);
  void (*narrow_rows)(Tile<float>, const float* factor, uint32_t* to);
  void (*narrow_columns)(Tile<float>, const float* factor, uint32_t* mixed, uint32_t* to);
  // Whole rows, see kernels.h.
  void (*unit_rows)(Dtype, const void* x, int64_t rows, int64_t d, void* y, T* lengths);
  void (*unit_rows_gradient)(Dtype, const void* grad, const void* x, const T* lengths, int64_t rows,
                             int64_t d, void* dx);
  void (*row_lengths)(const Block<T>&, int64_t d, T* lengths);
  // The gradient of unit rows, in place, to that of the rows x; dots [rows] = <x / |x|, grad>.
  void (*project)(const Block<T>& x, const T* lengths, int64_t d, T* grad, double* dots);
};

template <typename T>
const Simd<T>& simd();

}  // namespace fastcl::cpu
