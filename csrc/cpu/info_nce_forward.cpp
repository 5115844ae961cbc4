// info_nce forward on the CPU:
//     loss_i = log sum_{j in D(i)} exp(s_ij) - mean_{j in P(i)} s_ij,   s_ij = scale <q_i, k_j>
// (van den Oord et al. 2018, equation 4), and the same down the columns. Reads q and k once per
// block of the other, writes [4, n]; the n x m similarities exist one cache-sized tile at a time.
// Where k is q, tiles on one side of the diagonal serve their rows and their columns.
// The logit of a lone positive is kept apart from the negatives and the loss is finished in
// double, as log(1 + negatives / positive): near convergence it is far below one rounding of lse.
#include <algorithm>

#include "cpu/info_nce.h"

namespace fastcl::cpu {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// log(1 + exp(x)).
double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

struct Statistics {
  double loss, lse, positive, count;
};

// sums of one row or column; extra is the logit of one more positive, or null.
Statistics finish(double negative, double positive, double logit, double count, double shift,
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
  void combine(bool online) {
    const Sums<T> to = slot(0);
    for (int64_t s = 1; s < slots_; ++s) {
      const Sums<T> from = slot(s);
      for (int64_t i = 0; i < size_; ++i) {
        const double most = std::max(to.most[i], from.most[i]);
        const bool scaled = online && most > -kInfinity;
        const double a = scaled ? std::exp2(to.most[i] - most) : 1;
        const double b = scaled ? std::exp2(from.most[i] - most) : 1;
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
Order order_of(const InfoNceForward<T>& x) {
  if (x.symmetric) return Order::kTriangle;
  return x.cols != nullptr ? Order::kSquare : Order::kRows;
}

template <typename T>
class Forward {
 public:
  explicit Forward(const InfoNceForward<T>& x)
      : x_(x),
        tiles_(x, Schedule(order_of(x), x.n, x.m, x.weighted ? x.d * sizeof(T) : 4 * sizeof(double))),
        rows_(x.n, tiles_.schedule.slots),
        cols_(order_of(x) == Order::kSquare ? x.m : 0, 1),
        online_(!x.unit || !reducible(x.scale)) {
    const double above = std::max(0.0, x.scale - kSpan<T>);
    shift_ = online_ ? T(0) : static_cast<T>(std::ceil(above * kLog2E));
    keep_ = !online_ && x.weighted != nullptr && tiles_.schedule.order == Order::kRows;
    if (x.pivot != nullptr) {
      pivot_ = Buffer<T>(x.n, T(0));
      std::copy_n(x.pivot, x.n, pivot_.data());
    }
  }

  void operator()() {
    pass();
    if (!online_ && damaged()) {
      online_ = true;
      keep_ = false;
      pass();
    }
    write();
    if (x_.weighted != nullptr) {
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
  bool damaged(const Sums<T>& sums, int64_t i, int64_t others, bool positives_in) const;
  double shift(const Sums<T>& sums, int64_t i) const;
  void write();
  void write_kept();
  void weigh();

  const InfoNceForward<T> x_;
  Tiles<T> tiles_;
  SumsBuffer<T> rows_, cols_;
  Buffer<T> pivot_, kept_;         // kept_ [slots, n, d]
  std::vector<int64_t> ranks_;     // [slots, n]
  bool online_, keep_;
  T shift_;
};

template <typename T>
void Forward<T>::pass() {
  const int64_t slots = tiles_.schedule.slots;
  rows_.clear();
  cols_.clear();
  if (x_.pivot != nullptr) ranks_.assign(slots * x_.n, 0);
  if (keep_) kept_ = Buffer<T>(slots * x_.n * x_.d, T(0));
  run(tiles_.schedule, tiles_.workers,
      [&](const Pair& pair, int64_t worker) { fold(pair, worker); });
  rows_.combine(online_);
}

template <typename T>
void Forward<T>::fold(const Pair& pair, int64_t worker) {
  const Simd<T>& simd = cpu::simd<T>();
  const Tile<T> tile = tiles_.similarities(pair, worker);
  const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
  if (x_.pivot != nullptr) rank(tile, pair);
  const Sums<T> rows = rows_.slot(pair.slot).at(row);
  Sums<T> cols{};
  if (tiles_.schedule.order == Order::kSquare) cols = cols_.slot(0).at(col);
  if (tiles_.schedule.order == Order::kTriangle && row != col) cols = rows_.slot(0).at(col);
  if (online_) {
    const bool in = x_.positives_in && x_.extra == nullptr;
    simd.fold_online(tile, tiles_.match(pair), tiles_.scale, in, rows, cols);
  } else if (tiles_.may_match(pair)) {
    simd.fold_matching(tile, tiles_.match(pair), tiles_.scale, shift_, rows, cols);
  } else {
    simd.fold(tile, tiles_.scale, shift_, rows, cols, keep_);
  }
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

// Whether a sum over `others` terms overflowed, or is so small that terms which underflowed would
// show. NaN is no damage: it stays NaN.
template <typename T>
bool Forward<T>::damaged(const Sums<T>& sums, int64_t i, int64_t others, bool positives_in) const {
  if (!positives_in) others -= static_cast<int64_t>(sums.count[i]);
  if (others <= 0) return false;
  const double total = sums.negative[i] + (positives_in ? sums.positive[i] : 0);
  const double lost = static_cast<double>(std::numeric_limits<T>::min()) * others;
  return total == kInfinity || total < lost / std::numeric_limits<T>::epsilon();
}

template <typename T>
bool Forward<T>::damaged() const {
  const bool in = x_.positives_in && x_.extra == nullptr;
  for (int64_t i = 0; i < x_.n; ++i) {
    if (damaged(rows_.slot(0), i, x_.m - (x_.symmetric ? 1 : 0), in)) return true;
  }
  for (int64_t j = 0; cols_.slot(0).negative != nullptr && j < x_.m; ++j) {
    if (damaged(cols_.slot(0), j, x_.n, in)) return true;
  }
  return false;
}

// The shift of a sum in natural-log units.
template <typename T>
double Forward<T>::shift(const Sums<T>& sums, int64_t i) const {
  if (!online_) return kLn2 * shift_;
  return sums.most[i] == -kInfinity ? 0 : kLn2 * sums.most[i];
}

template <typename T>
void Forward<T>::write() {
  const bool in = x_.positives_in && x_.extra == nullptr;
  const auto put = [&](const Sums<T>& sums, T* to, int64_t size, const T* extra) {
    for (int64_t i = 0; i < size; ++i) {
      const double added = extra != nullptr ? x_.scale * extra[i] : 0;
      const Statistics found =
          finish(sums.negative[i], sums.positive[i], x_.scale * sums.logit[i], sums.count[i],
                 shift(sums, i), in, extra != nullptr ? &added : nullptr);
      const T loss = static_cast<T>(found.loss), positive = static_cast<T>(found.positive);
      // One rounding of an lse of 100 changes every p by 4e-6 in float: the rest is kept too.
      const double rest = found.lse - loss - positive;
      to[i] = loss;
      to[size + i] = std::isfinite(rest) ? static_cast<T>(rest) : T(0);
      to[2 * size + i] = positive;
      to[3 * size + i] = static_cast<T>(found.count);
    }
  };
  put(rows_.slot(0), x_.rows, x_.n, x_.extra);
  if (x_.cols != nullptr) put(x_.symmetric ? rows_.slot(0) : cols_.slot(0), x_.cols, x_.m, nullptr);
  for (int64_t i = 0; x_.rank != nullptr && i < x_.n; ++i) {
    x_.rank[i] = 0;
    for (int64_t s = 0; s < tiles_.schedule.slots; ++s) x_.rank[i] += ranks_[s * x_.n + i];
  }
}

template <typename T>
void Forward<T>::write_kept() {
  for (int64_t i = 0; i < x_.n; ++i) {
    const double lse = lse_of(x_.rows, x_.n, i);
    const T factor = lse == -kInfinity ? T(0) : static_cast<T>(std::exp(kLn2 * shift_ - lse));
    T* to = x_.weighted + i * x_.d;
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
  Buffer<T> one(x_.n), zero(x_.n, T(0)), lse(x_.n);
  for (int64_t i = 0; i < x_.n; ++i) {
    const double value = lse_of(x_.rows, x_.n, i);
    one[i] = value == -kInfinity ? T(0) : T(1);
    lse[i] = value == -kInfinity ? T(0) : static_cast<T>(value * kLog2E);
  }
  const Weights<T> weights{one.data(), zero.data(), zero.data(), lse.data()};
  accumulate<T>(x_, {weights, {}, false, T(0), false, x_.weighted, nullptr});
}

}  // namespace

template <typename T>
void info_nce_forward(const InfoNceForward<T>& x) {
  Forward<T> forward(x);
  forward();
}

template void info_nce_forward(const InfoNceForward<float>&);
template void info_nce_forward(const InfoNceForward<double>&);

}  // namespace fastcl::cpu
