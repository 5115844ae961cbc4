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

// Of the mean over the rows in the loss.
template <typename T>
double share(const InfoNceMean<T>& x) {
  return x.cols != nullptr ? 0.5 : 1;
}

template <typename T>
class Chunks {
 public:
  explicit Chunks(const InfoNceMean<T>& x)
      : x_(x),
        tiles_(x, Schedule(Order::kChunks, x.n, x.m, x.d, x.m * sizeof(T))),
        in_(x.positives_in && x.extra == nullptr),
        shift_(x),
        grad_(x.n),
        weights_(x.n),
        rows_(rows(), tiles_.schedule.col_blocks),
        cols_(x.cols != nullptr ? x.m : 0, tiles_.schedule.row_blocks),
        col_weights_(x.cols != nullptr ? x.m : 0),
        kept_(tiles_.schedule.group * tiles_.schedule.col_blocks * tiles_.tile_size()) {
    std::fill_n(grad_.data(), x.n, static_cast<T>(share(x) / x.n));
  }

  static bool pays(const InfoNceMean<T>& x) {
    const Schedule schedule(Order::kChunks, x.n, x.m, x.d, x.m * sizeof(T));
    if (x.cols != nullptr) return schedule.group >= schedule.row_blocks;
    return schedule.group * schedule.rows_per_block >= std::min(x.n, kThin);
  }

  void operator()() {
    if (x_.dq != nullptr) std::fill_n(x_.dq, x_.n * x_.d, T(0));
    if (x_.dk != nullptr) std::fill_n(x_.dk, x_.m * x_.d, T(0));
    const Schedule& schedule = tiles_.schedule;
    for (first_ = 0; first_ < schedule.row_blocks; first_ += schedule.group) {
      group_ = std::min(schedule.group, schedule.row_blocks - first_);
      begin_ = tiles_.row_begin(first_);
      size_ = std::min(rows(), x_.n - begin_);
      sum();
      weigh();
      down();
      if (x_.dq != nullptr) across();
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

  const InfoNceMean<T> x_;
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
  const bool both = x_.cols != nullptr;
  cpu::fold(tiles_, tile, pair(block, col), shift_, in_, sums,
            both ? cols_.slot(block).at(tiles_.col_begin(col)) : Sums<T>{}, false);
}

template <typename T>
bool Chunks<T>::damaged() const {
  return cpu::damaged(rows_.slot(0), size_, x_.m, in_) ||
         (x_.cols != nullptr && cpu::damaged(cols_.slot(0), x_.m, x_.n, in_));
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
  put<T>(rows_.slot(0), size_, shift_, x_.scale, in_, extra, x_.rows + begin_, x_.n, nullptr);
  if (x_.cols != nullptr) {
    put<T>(cols_.slot(0), x_.m, shift_, x_.scale, in_, nullptr, x_.cols, x_.m, nullptr);
  }
}

template <typename T>
void Chunks<T>::weigh() {
  const Side<T> side{grad_.data(), nullptr, x_.rows, x_.n};
  Spread spread;
  spread.add(side, begin_, begin_ + size_);
  const Buffer<T> col_grad(x_.cols != nullptr ? x_.m : 0, static_cast<T>(share(x_) / x_.m));
  const Side<T> col_side{col_grad.data(), nullptr, x_.cols, x_.m};
  if (x_.cols != nullptr) spread.add(col_side, 0, x_.m);
  common_ = Common::of<T>(spread, x_.scale);
  weights_.add(side, begin_, begin_ + size_, x_, x_.extra != nullptr, common_);
  if (x_.cols != nullptr) col_weights_.add(col_side, 0, x_.m, x_, false, common_);
}

// The gradient of every tile, and of the columns.
template <typename T>
void Chunks<T>::down() {
  run_items(columns(), tiles_.workers, [&](int64_t col, int64_t worker) {
    for (int64_t block = 0; block < group_; ++block) {
      const Pair here = pair(block, col);
      const Tile<T> tile = tiles_.tile(here, at(block, col));
      const Weights<T> rows = weights_.view().at(tiles_.row_begin(here.row));
      const bool both = x_.cols != nullptr;
      cpu::weigh(tiles_, tile, here, common_.one, static_cast<T>(common_.shift), rows,
                 both ? col_weights_.view().at(tiles_.col_begin(col)) : Weights<T>{});
      if (x_.dk == nullptr) continue;
      tiles_.times_q(tile, here, worker, x_.dk + tiles_.col_begin(col) * x_.d);
    }
  });
}

// The gradient of the rows.
template <typename T>
void Chunks<T>::across() {
  const int64_t slices = tiles_.slices();
  run_items(group_ * slices, tiles_.workers, [&](int64_t item, int64_t worker) {
    const int64_t block = item / slices, slice = item % slices;
    for (int64_t col = 0; col < columns(); ++col) {
      const Pair here = pair(block, col);
      tiles_.times_k(tiles_.tile(here, at(block, col)), here, worker,
                     x_.dq + tiles_.row_begin(here.row) * x_.d, slice, slice + 1);
    }
  });
}

// Gradients of unit rows to those of the rows that were divided by their length.
template <typename T>
void project_both(const InfoNceMean<T>& x) {
  if (x.q_lengths == nullptr) return;
  const auto lengths = [](const void* at) { return static_cast<const T*>(at); };
  if (x.dq != nullptr) *x.dot = project(x.dtype, x.q, lengths(x.q_lengths), x.d, x.dq);
  if (x.dk != nullptr) project(x.dtype, x.k, lengths(x.k_lengths), x.d, x.dk);
}

// Whether no positive is among the columns: then the forward alone has the gradient of the rows.
template <typename T>
bool apart(const InfoNceMean<T>& x) {
  return x.row_ids == nullptr || x.extra != nullptr;
}

template <typename T>
void in_passes(const InfoNceMean<T>& x) {
  const bool frozen = apart(x) && x.dk == nullptr && x.cols == nullptr;
  info_nce_forward<T>({x, x.extra, nullptr, x.rows, x.cols, nullptr, frozen ? x.dq : nullptr});
  if (x.dq == nullptr && x.dk == nullptr) return;
  if (frozen) {
    const T factor = static_cast<T>(x.scale / x.n);
    for (int64_t i = 0; i < x.n * x.d; ++i) x.dq[i] *= factor;
    return project_both(x);
  }
  const Buffer<T> grad(x.n, static_cast<T>(share(x) / x.n));
  const Buffer<T> col_grad(x.m, static_cast<T>(share(x) / x.m));
  info_nce_backward<T>({x, grad.data(), nullptr, x.cols != nullptr ? col_grad.data() : nullptr,
                        nullptr, x.rows, x.cols, x.extra != nullptr, x.dq, x.dk, x.dot});
}

}  // namespace

template <typename T>
void info_nce_mean(const InfoNceMean<T>& x) {
  const bool either = x.dq != nullptr || x.dk != nullptr;
  const bool three = x.dk != nullptr || (either && (x.cols != nullptr || !apart(x)));
  if (three && Chunks<T>::pays(x)) {
    Chunks<T> chunks(x);
    chunks();
    project_both(x);
  } else {
    in_passes(x);
  }
  const auto mean = [](const T* losses, int64_t size) {
    return sum_of(0, size, [&](int64_t i) { return losses[i]; }) / size;
  };
  *x.loss = share(x) * mean(x.rows, x.n);
  if (x.cols != nullptr) *x.loss += share(x) * mean(x.cols, x.m);
}

template void info_nce_mean(const InfoNceMean<float>&);
template void info_nce_mean(const InfoNceMean<double>&);

}  // namespace fastcl::cpu
