// Forward passes over a tile: with E_ij = 2^(s_ij scale - shift),
//     row i += sum_j E_ij,    column j += sum_i E_ij
// in one read of the tile, one exponential for both directions. Sums inside a tile are in T, a
// vector lane or a column at a time; across tiles they are in double.
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {
namespace {

constexpr int64_t kColumns = cpu::kMaxColumns + kPadding;

template <typename T, bool kCols, bool kKeep>
void fold_plain(Tile<T> tile, const Exponential<T>& power, Sums<T> rows, Sums<T> cols) {
  using V = Vector<T>;
  T column[kColumns] = {};
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* s = tile.s + i * tile.stride;
    V row{};
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const V e = power(load<V>(s + j));
      row += e;
      if constexpr (kKeep) store(s + j, e);
      if constexpr (kCols) store(column + j, load<V>(column + j) + e);
    }
    rows.negative[i] += sum<T>(row);
  }
  if constexpr (kCols) {
    for (int64_t j = 0; j < tile.cols; ++j) cols.negative[j] += column[j];
  }
}

// Column sums of one tile.
template <typename T>
struct Columns {
  T negative[kColumns] = {}, positive[kColumns] = {}, logit[kColumns] = {};
  Code<T> count[kColumns] = {};

  void add(int64_t j, const Lane<T>& lane, Vector<T> e, Vector<T> s) {
    using V = Vector<T>;
    store(negative + j, load<V>(negative + j) + where<T>(lane.negative, e));
    store(positive + j, load<V>(positive + j) + where<T>(lane.same, e));
    store(logit + j, load<V>(logit + j) + where<T>(lane.same, s));
    store(count + j, load<Integer<T>>(count + j) - lane.same);
  }

  void add_to(Sums<T> cols, int64_t n) const {
    for (int64_t j = 0; j < n; ++j) {
      cols.negative[j] += negative[j];
      cols.positive[j] += positive[j];
      cols.logit[j] += logit[j];
      cols.count[j] += count[j];
    }
  }
};

template <typename T>
struct Row {
  Vector<T> negative{}, positive{}, logit{};
  Integer<T> count{};

  void add(const Lane<T>& lane, Vector<T> e, Vector<T> s) {
    negative += where<T>(lane.negative, e);
    positive += where<T>(lane.same, e);
    logit += where<T>(lane.same, s);
    count -= lane.same;
  }

  void add_to(Sums<T> rows, int64_t i) const {
    rows.negative[i] += sum<T>(negative);
    rows.positive[i] += sum<T>(positive);
    rows.logit[i] += sum<T>(logit);
    for (int l = 0; l < kWidth<T>; ++l) rows.count[i] += count[l];
  }
};

template <typename T, bool kCols, bool kKeep>
void fold_match(Tile<T> tile, Match<T> match, const Exponential<T>& power, Sums<T> rows,
                Sums<T> cols) {
  using V = Vector<T>;
  Columns<T> columns;
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* at = tile.s + i * tile.stride;
    Row<T> row;
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Lane<T> lane(match, i, j);
      const V s = load<V>(at + j), e = power(s);
      row.add(lane, e, s);
      if constexpr (kCols) columns.add(j, lane, e, s);
      if constexpr (kKeep) store(at + j, where<T>(lane.negative, e));
    }
    row.add_to(rows, i);
  }
  if constexpr (kCols) columns.add_to(cols, tile.cols);
}

// Largest similarity in the denominator, per row and per column of the tile.
template <typename T>
void largest(Tile<T> tile, Match<T> match, bool positives_in, T* row, T* column) {
  using V = Vector<T>;
  const V none = splat<T>(-__builtin_inf());
  for (int64_t j = 0; j < tile.cols; j += kWidth<T>) store(column + j, none);
  for (int64_t i = 0; i < tile.rows; ++i) {
    V most = none;
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Lane<T> lane(match, i, j);
      const Integer<T> in = positives_in ? lane.negative | lane.same : lane.negative;
      const V s = in ? load<V>(tile.s + i * tile.stride + j) : none;
      most = at_least(most, s);
      store(column + j, at_least(load<V>(column + j), s));
    }
    row[i] = most[0];
    for (int l = 1; l < kWidth<T>; ++l) row[i] = most[l] > row[i] ? most[l] : row[i];
  }
}

}  // namespace

template <typename T>
void fold(Tile<T> tile, Scale<T> scale, T shift, Sums<T> rows, Sums<T> cols, bool keep) {
  const Exponential<T> power(scale.high, scale.low, shift, false);
  if (cols.negative != nullptr) return fold_plain<T, true, false>(tile, power, rows, cols);
  if (keep) return fold_plain<T, false, true>(tile, power, rows, cols);
  fold_plain<T, false, false>(tile, power, rows, cols);
}

template <typename T>
void fold_matching(Tile<T> tile, Match<T> match, Scale<T> scale, T shift, Sums<T> rows,
                   Sums<T> cols, bool keep) {
  const Exponential<T> power(scale.high, scale.low, shift, false);
  if (cols.negative != nullptr) return fold_match<T, true, false>(tile, match, power, rows, cols);
  if (keep) return fold_match<T, false, true>(tile, match, power, rows, cols);
  fold_match<T, false, false>(tile, match, power, rows, cols);
}

template <typename T>
void fold_online(Tile<T> tile, Match<T> match, Scale<T> scale, bool positives_in, Sums<T> rows,
                 Sums<T> cols) {
  using V = Vector<T>;
  const bool both = cols.negative != nullptr;
  T row_most[cpu::kMaxRows], column_most[kColumns];
  largest(tile, match, positives_in, row_most, column_most);
  if (both) {
    for (int64_t j = 0; j < tile.cols; ++j) {
      column_most[j] = raise(cols, j, column_most[j], scale);
    }
  }
  Columns<T> columns;
  for (int64_t i = 0; i < tile.rows; ++i) {
    const T most = raise(rows, i, row_most[i], scale);
    Row<T> row;
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Lane<T> lane(match, i, j);
      const V s = load<V>(tile.s + i * tile.stride + j);
      row.add(lane, shifted<T>(s, scale, splat<T>(most)), s);
      if (!both) continue;
      const V down = load<V>(column_most + j);
      columns.add(j, lane, shifted<T>(s, scale, down), s);
    }
    row.add_to(rows, i);
  }
  if (both) columns.add_to(cols, tile.cols);
}

template <typename T>
void above(Tile<T> tile, Match<T> match, const T* row_pivot, const T* col_pivot, int64_t* rows,
           int64_t* cols) {
  using V = Vector<T>;
  Code<T> column[kColumns] = {};
  for (int64_t i = 0; i < tile.rows; ++i) {
    Integer<T> row{};
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Integer<T> negative = Lane<T>(match, i, j).negative;
      const V s = load<V>(tile.s + i * tile.stride + j);
      row -= negative & (s > row_pivot[i]);
      if (col_pivot == nullptr) continue;
      const Integer<T> higher = negative & (s > load<V>(col_pivot + j));
      store(column + j, load<Integer<T>>(column + j) - higher);
    }
    for (int l = 0; l < kWidth<T>; ++l) rows[i] += row[l];
  }
  if (col_pivot == nullptr) return;
  for (int64_t j = 0; j < tile.cols; ++j) cols[j] += column[j];
}

template <typename T>
void leave_out(Tile<T> tile, Match<T> match, Tile<T> judge, const T* limit) {
  using V = Vector<T>;
  const V none = splat<T>(-__builtin_inf());
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* at = tile.s + i * tile.stride;
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const V s = load<V>(judge.s + i * judge.stride + j);
      const Integer<T> out = Lane<T>(match, i, j).negative & (s > limit[i]);
      store(at + j, out ? none : load<V>(at + j));
    }
  }
}

#define FASTCL_INSTANCE(T)                                                             \
  template void fold(Tile<T>, Scale<T>, T, Sums<T>, Sums<T>, bool);                    \
  template void fold_matching(Tile<T>, Match<T>, Scale<T>, T, Sums<T>, Sums<T>, bool); \
  template void fold_online(Tile<T>, Match<T>, Scale<T>, bool, Sums<T>, Sums<T>);      \
  template void above(Tile<T>, Match<T>, const T*, const T*, int64_t*, int64_t*);      \
  template void leave_out(Tile<T>, Match<T>, Tile<T>, const T*);
FASTCL_INSTANCE(float)
FASTCL_INSTANCE(double)
#undef FASTCL_INSTANCE

}  // namespace fastcl::FASTCL_SIMD
