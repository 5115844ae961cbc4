// The forward of the softmax contrast on the CPU:
//     loss_i = log sum_{j in D(i)} exp(s_ij) - mean_{j in P(i)} s_ij,   s_ij = scale <q_i, k_j>
// (van den Oord et al. 2018, equation 4), and the same down the columns. Reads q and k once per
// block of the other, writes [4, n]; the n x m similarities exist one cache-sized tile at a time.
// Where k is q, tiles on one side of the diagonal serve their rows and their columns.
// The logit of a lone positive is kept apart from the negatives and the loss is finished in
// double, as log(1 + negatives / positive): near convergence it is far below one rounding of lse.
#include <algorithm>

#include "cpu/statistics.h"

namespace fastcl::cpu {
namespace {

Order order_of(const Problem& x) {
  if (x.symmetric) return Order::kTriangle;
  return x.both ? Order::kSquare : Order::kRows;
}

// What is wanted, null where it is not.
template <typename T>
struct Wanted {
  const T* pivot;
  T* rows;
  T* cols;
  int64_t* rank;
  T* weighted;
};

template <typename T>
class Forward {
 public:
  Forward(const Divided<T>& x, const Wanted<T>& wanted)
      : x_(x),
        wanted_(wanted),
        tiles_(x, Schedule(order_of(x), x.n, x.m, x.d,
                           wanted.weighted ? x.d * sizeof(T) : 4 * sizeof(double))),
        rows_(x.n, tiles_.schedule.slots),
        cols_(order_of(x) == Order::kSquare ? x.m : 0, 1),
        in_(x.positives_in && !x.has_own()),
        shift_(x) {
    keep_ = !shift_.online && wanted.weighted != nullptr && tiles_.schedule.order == Order::kRows;
    if (wanted.pivot != nullptr) {
      pivot_ = Buffer<T>(x.n, T(0));
      std::copy_n(wanted.pivot, x.n, pivot_.data());
    }
  }

  void operator()() {
    pass();
    if (!shift_.online && damaged()) {
      shift_.online = true;
      keep_ = false;
      pass();
    }
    write();
    if (wanted_.weighted != nullptr) {
      if (keep_) {
        write_kept();
      } else {
        weigh();
      }
    }
  }

 private:
  void pass();
  void fold(const Pair& pair, int64_t worker);
  void rank(const Tile<T>& tile, const Pair& pair);
  bool damaged() const;
  void write();
  void write_kept();
  void weigh();

  const Divided<T> x_;
  const Wanted<T> wanted_;
  Tiles<T> tiles_;
  SumsBuffer<T> rows_, cols_;
  Buffer<T> pivot_, kept_;      // kept_ [slots, n, d]
  std::vector<int64_t> ranks_;  // [slots, n]
  std::vector<double> lse_;     // [n], where `weighted` is wanted
  const bool in_;               // positives are part of the sums
  Shift<T> shift_;
  bool keep_;
};

template <typename T>
void Forward<T>::pass() {
  const int64_t slots = tiles_.schedule.slots;
  rows_.clear();
  cols_.clear();
  if (wanted_.pivot != nullptr) ranks_.assign(slots * x_.n, 0);
  if (keep_) kept_ = Buffer<T>(slots * x_.n * x_.d, T(0));
  run(tiles_.schedule, tiles_.workers,
      [&](const Pair& pair, int64_t worker) { fold(pair, worker); });
  rows_.combine(shift_.online, x_.scale);
}

template <typename T>
void Forward<T>::fold(const Pair& pair, int64_t worker) {
  const Tile<T> tile = tiles_.similarities(pair, worker);
  const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
  if (wanted_.pivot != nullptr) rank(tile, pair);
  const Sums<T> rows = rows_.slot(pair.slot).at(row);
  Sums<T> cols{};
  if (tiles_.schedule.order == Order::kSquare) cols = cols_.slot(0).at(col);
  if (tiles_.schedule.order == Order::kTriangle && row != col) cols = rows_.slot(0).at(col);
  cpu::fold(tiles_, tile, pair, shift_, in_, rows, cols, keep_);
  if (keep_) tiles_.times_k(tile, pair, worker, kept_.data() + (pair.slot * x_.n + row) * x_.d);
}

template <typename T>
void Forward<T>::rank(const Tile<T>& tile, const Pair& pair) {
  const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
  const bool down = tiles_.schedule.order == Order::kTriangle && row != col;
  int64_t* ranks = ranks_.data() + pair.slot * x_.n;
  simd<T>().above(tile, tiles_.match(pair), pivot_.data() + row,
                  down ? pivot_.data() + col : nullptr, ranks + row, ranks + col);
}

template <typename T>
bool Forward<T>::damaged() const {
  if (cpu::damaged(rows_.slot(0), x_.n, x_.m - (x_.symmetric ? 1 : 0), in_)) return true;
  return cols_.slot(0).negative != nullptr && cpu::damaged(cols_.slot(0), x_.m, x_.n, in_);
}

template <typename T>
void Forward<T>::write() {
  if (wanted_.weighted != nullptr) lse_.resize(x_.n);
  double* lse = wanted_.weighted != nullptr ? lse_.data() : nullptr;
  put(rows_.slot(0), x_.n, shift_, x_.scale, in_, x_.extra, wanted_.rows, x_.n, lse);
  if (wanted_.cols != nullptr) {
    put<T>(x_.symmetric ? rows_.slot(0) : cols_.slot(0), x_.m, shift_, x_.scale, in_, nullptr,
           wanted_.cols, x_.m, nullptr);
  }
  for (int64_t i = 0; wanted_.rank != nullptr && i < x_.n; ++i) {
    wanted_.rank[i] = 0;
    for (int64_t s = 0; s < tiles_.schedule.slots; ++s) wanted_.rank[i] += ranks_[s * x_.n + i];
  }
}

template <typename T>
void Forward<T>::write_kept() {
  const double* negative = rows_.slot(0).negative;
  for (int64_t i = 0; i < x_.n; ++i) {
    // Without a negative nothing was summed, and the shift may lie far above a lone positive.
    const bool none = negative[i] == 0;
    const T factor = none ? T(0) : static_cast<T>(std::exp(kLn2 * shift_.fixed - lse_[i]));
    T* to = wanted_.weighted + i * x_.d;
    std::fill_n(to, x_.d, T(0));
    for (int64_t s = 0; s < tiles_.schedule.slots; ++s) {
      const T* from = kept_.data() + (s * x_.n + i) * x_.d;
      for (int64_t c = 0; c < x_.d; ++c) to[c] += factor * from[c];
    }
  }
}

// A second pass, for logits whose shift was not known in the first.
template <typename T>
void Forward<T>::weigh() {
  Buffer<T> one(x_.n), zero(x_.n, T(0)), at(x_.n), rest(x_.n);
  for (int64_t i = 0; i < x_.n; ++i) {
    const Pivot<T> pivot(std::isfinite(lse_[i]) ? lse_[i] : 0, x_.scale);
    at[i] = pivot.s;
    rest[i] = pivot.rest;
    one[i] = lse_[i] == -kInfinity ? T(0) : static_cast<T>(std::isfinite(lse_[i]) ? 1 : kNaN);
  }
  const Weights<T> weights{one.data(), zero.data(), zero.data(), at.data(), rest.data()};
  accumulate<T>(x_, {weights, {}, false, T(0), false, wanted_.weighted, nullptr});
}

}  // namespace

template <typename T>
void forward(const Divided<T>& x, const T* pivot, T* rows, T* cols, int64_t* rank, T* weighted) {
  Forward<T>(x, {pivot, rows, cols, rank, weighted})();
}

template void forward(const Divided<float>&, const float*, float*, float*, int64_t*, float*);
template void forward(const Divided<double>&, const double*, double*, double*, int64_t*, double*);

}  // namespace fastcl::cpu
