// The mean loss of all rows and its gradients on the CPU: a row is done once it has seen all
// columns, so
//     s = scale q k^T of a chunk of rows,   loss_i = lse_i - mean positive,   dS = (p - y) / n,
//     dq = scale dS k,   dk += scale dS^T q
// takes three products, of which only the tiles of one chunk exist at a time (kKept). The forward
// and the backward, where rows of that many tiles would be too few, take four. Where the columns
// have a loss of their own, they are done with the last row: all rows are to be one chunk then.
#include <algorithm>

#include "cpu/statistics.h"
#include "cpu/weights.h"

namespace fastcl::cpu {
namespace {

// Rows of a chunk below which packing k for every chunk is expected to cost what a product saves;
// an estimate, not measured.
constexpr int64_t kThin = 96;

template <typename T>
class Chunks {
 public:
  Chunks(const Divided<T>& x, T* to_rows, T* to_cols, T* dq, T* dk)
      : x_(x),
        to_rows_(to_rows),
        to_cols_(to_cols),
        dq_(dq),
        dk_(dk),
        tiles_(x, Schedule(Order::kChunks, x.n, x.m, x.d, x.m * sizeof(T))),
        in_(x.positives_in && !x.has_own()),
        shift_(x),
        grad_(x.n),
        weights_(x.n),
        rows_(rows(), tiles_.schedule.col_blocks),
        cols_(x.both ? x.m : 0, tiles_.schedule.row_blocks),
        col_weights_(x.both ? x.m : 0),
        kept_(tiles_.schedule.group * tiles_.schedule.col_blocks * tiles_.tile_size()) {}

  static bool pays(const Problem& x) {
    const Schedule schedule(Order::kChunks, x.n, x.m, x.d, x.m * sizeof(T));
    if (x.both) return schedule.group >= schedule.row_blocks;
    return schedule.group * schedule.rows_per_block >= std::min(x.n, kThin);
  }

  void operator()() {
    if (dq_ != nullptr) std::fill_n(dq_, x_.n * x_.d, T(0));
    if (dk_ != nullptr) std::fill_n(dk_, x_.m * x_.d, T(0));
    const Schedule& schedule = tiles_.schedule;
    for (first_ = 0; first_ < schedule.row_blocks; first_ += schedule.group) {
      group_ = std::min(schedule.group, schedule.row_blocks - first_);
      begin_ = tiles_.row_begin(first_);
      size_ = std::min(rows(), x_.n - begin_);
      sum();
      weigh();
      down();
      if (dq_ != nullptr) across();
    }
  }

 private:
  int64_t rows() const { return tiles_.schedule.group * tiles_.schedule.rows_per_block; }
  int64_t columns() const { return tiles_.schedule.col_blocks; }
  Pair pair(int64_t block, int64_t col) const { return {first_ + block, col, col}; }
  T* at(int64_t block, int64_t col) const {
    return kept_.data() + (block * columns() + col) * tiles_.tile_size();
  }

  void sum();
  void fold(int64_t block, int64_t col, const Tile<T>& tile);
  bool damaged() const;
  void weigh();
  void down();
  void across();

  const Divided<T> x_;
  T *const to_rows_, *const to_cols_, *const dq_, *const dk_;
  Tiles<T> tiles_;
  const bool in_;  // positives are part of the sums
  Shift<T> shift_;
  Buffer<T> grad_;
  WeightsBuffer<T> weights_;
  SumsBuffer<T> rows_;  // of the chunk, a slot for every block of columns
  SumsBuffer<T> cols_;  // where they count, a slot for every block of rows
  WeightsBuffer<T> col_weights_;
  Buffer<T> kept_;  // [group, blocks of columns] tiles
  Common common_{};
  int64_t first_, group_;  // blocks of this chunk
  int64_t begin_, size_;   // its rows
};

template <typename T>
void Chunks<T>::fold(int64_t block, int64_t col, const Tile<T>& tile) {
  const Sums<T> sums = rows_.slot(col).at(block * tiles_.schedule.rows_per_block);
  const bool both = x_.both;
  cpu::fold(tiles_, tile, pair(block, col), shift_, in_, sums,
            both ? cols_.slot(block).at(tiles_.col_begin(col)) : Sums<T>{}, false);
}

template <typename T>
bool Chunks<T>::damaged() const {
  return cpu::damaged(rows_.slot(0), size_, x_.m, in_) ||
         (x_.both && cpu::damaged(cols_.slot(0), x_.m, x_.n, in_));
}

// Tiles of the chunk, sums of its rows and what they say.
template <typename T>
void Chunks<T>::sum() {
  rows_.clear();
  cols_.clear();
  run_items(group_ * columns(), tiles_.workers, [&](int64_t item, int64_t worker) {
    const int64_t block = item % group_, col = item / group_;
    fold(block, col, tiles_.similarities(pair(block, col), worker, at(block, col)));
  });
  rows_.combine(shift_.online, x_.scale);
  cols_.combine(shift_.online, x_.scale);
  if (!shift_.online && damaged()) {
    shift_.online = true;
    rows_.clear();
    cols_.clear();
    run_items(group_ * columns(), tiles_.workers, [&](int64_t item, int64_t) {
      const int64_t block = item % group_, col = item / group_;
      fold(block, col, tiles_.tile(pair(block, col), at(block, col)));
    });
    rows_.combine(true, x_.scale);
    cols_.combine(true, x_.scale);
  }
  const T* extra = x_.extra != nullptr ? x_.extra + begin_ : nullptr;
  put<T>(rows_.slot(0), size_, shift_, x_.scale, in_, extra, to_rows_ + begin_, x_.n, nullptr);
  if (x_.both) {
    put<T>(cols_.slot(0), x_.m, shift_, x_.scale, in_, nullptr, to_cols_, x_.m, nullptr);
  }
}

template <typename T>
void Chunks<T>::weigh() {
  for (int64_t i = begin_; i < begin_ + size_; ++i) {
    grad_[i] = static_cast<T>(upstream_of_row(x_, to_rows_, i));
  }
  const Side<T> side{grad_.data(), nullptr, to_rows_, x_.n};
  Spread spread;
  spread.add(side, begin_, begin_ + size_);
  const Buffer<T> col_grad(x_.both ? x_.m : 0);
  for (int64_t j = 0; x_.both && j < x_.m; ++j) {
    col_grad[j] = static_cast<T>(upstream_of_column(x_, to_cols_, j));
  }
  const Side<T> col_side{col_grad.data(), nullptr, to_cols_, x_.m};
  if (x_.both) spread.add(col_side, 0, x_.m);
  common_ = Common::of<T>(spread, x_.scale);
  weights_.add(side, begin_, begin_ + size_, x_, common_);
  if (x_.both) col_weights_.add(col_side, 0, x_.m, x_, common_);
}

// The gradient of every tile, and of the columns.
template <typename T>
void Chunks<T>::down() {
  run_items(columns(), tiles_.workers, [&](int64_t col, int64_t worker) {
    for (int64_t block = 0; block < group_; ++block) {
      const Pair here = pair(block, col);
      const Tile<T> tile = tiles_.tile(here, at(block, col));
      const Weights<T> rows = weights_.view().at(tiles_.row_begin(here.row));
      const bool both = x_.both;
      cpu::weigh(tiles_, tile, here, common_.one, static_cast<T>(common_.shift), rows,
                 both ? col_weights_.view().at(tiles_.col_begin(col)) : Weights<T>{});
      if (dk_ == nullptr) continue;
      tiles_.times_q(tile, here, worker, dk_ + tiles_.col_begin(col) * x_.d);
    }
  });
}

// The gradient of the rows.
template <typename T>
void Chunks<T>::across() {
  const Features all = tiles_.all();
  const int64_t slices = tiles_.slices(all);
  run_items(group_ * slices, tiles_.workers, [&](int64_t item, int64_t worker) {
    const int64_t block = item / slices, slice = item % slices;
    for (int64_t col = 0; col < columns(); ++col) {
      const Pair here = pair(block, col);
      tiles_.times_k(tiles_.tile(here, at(block, col)), here, worker,
                     dq_ + tiles_.row_begin(here.row) * x_.d, tiles_.slice(all, slice));
    }
  });
}

}  // namespace

template <typename T>
bool chunks_serve(const Divided<T>& x) {
  return Chunks<T>::pays(x);
}

template <typename T>
void in_chunks(const Divided<T>& x, T* rows, T* cols, T* dq, T* dk) {
  Chunks<T>(x, rows, cols, dq, dk)();
}

template bool chunks_serve(const Divided<float>&);
template bool chunks_serve(const Divided<double>&);
template void in_chunks(const Divided<float>&, float*, float*, float*, float*);
template void in_chunks(const Divided<double>&, double*, double*, double*, double*);

}  // namespace fastcl::cpu
