// info_nce backward on the CPU: with p_ij = exp(s_ij - lse_i) over the denominator and y_ij =
// 1 / |P(i)| on the positives,
//     dS_ij = grad_loss_i (p_ij - y_ij) + grad_positive_i y_ij,  and the same down the columns,
//     dq = scale dS k,   dk = scale dS^T q.
// Similarities are formed again, a tile at a time, and overwritten by dS. One exponential serves
// rows and columns, 2^(s - shift) (a_i + b_j), unless their lse are too far apart. Where k is q a
// tile on one side of the diagonal holds dS + dS^T and serves both of its blocks.
#include <algorithm>

#include "cpu/info_nce.h"

namespace fastcl::cpu {

template <typename T>
void accumulate(const InfoNce& x, const Gradient<T>& g) {
  const Order order = g.mirrored        ? Order::kTriangle
                      : g.dk != nullptr ? Order::kSquare
                                        : Order::kRows;
  Tiles<T> tiles(x, Schedule(order, x.n, x.m, x.d * sizeof(T)));
  const int64_t slots = tiles.schedule.slots;
  Buffer<T> chunks;
  T* dq = g.dq;
  if (slots > 1) {
    chunks = Buffer<T>(slots * x.n * x.d, T(0));
    dq = chunks.data();
  } else if (dq != nullptr) {
    std::fill_n(dq, x.n * x.d, T(0));
  }
  if (g.dk != nullptr) std::fill_n(g.dk, x.m * x.d, T(0));
  const bool both = g.cols.in_negative != nullptr;
  run(tiles.schedule, tiles.workers, [&](const Pair& pair, int64_t worker) {
    const Simd<T>& simd = cpu::simd<T>();
    const Tile<T> tile = tiles.similarities(pair, worker);
    const int64_t row = tiles.row_begin(pair.row), col = tiles.col_begin(pair.col);
    const Weights<T> rows = g.rows.at(row), cols = both ? g.cols.at(col) : Weights<T>{};
    if (!g.one_shift) {
      simd.gradient_online(tile, tiles.match(pair), tiles.scale, rows, cols);
    } else if (tiles.may_match(pair)) {
      simd.gradient_matching(tile, tiles.match(pair), tiles.scale, g.shift, rows, cols);
    } else {
      simd.gradient(tile, tiles.scale, g.shift, rows, cols);
    }
    if (dq != nullptr) tiles.times_k(tile, pair, worker, dq + (pair.slot * x.n + row) * x.d);
    if (g.dk != nullptr) tiles.times_q(tile, pair, worker, g.dk + col * x.d);
    if (g.mirrored && row != col) tiles.times_q(tile, pair, worker, dq + col * x.d);
  });
  if (slots == 1) return;
  std::copy_n(chunks.data(), x.n * x.d, g.dq);
  for (int64_t s = 1; s < slots; ++s) {
    const T* from = chunks.data() + s * x.n * x.d;
    for (int64_t i = 0; i < x.n * x.d; ++i) g.dq[i] += from[i];
  }
}

template void accumulate(const InfoNce&, const Gradient<float>&);
template void accumulate(const InfoNce&, const Gradient<double>&);

namespace {

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
  void add(const Side<T>& side) {
    for (int64_t i = 0; i < side.size; ++i) {
      const double lse = side.lse(i);
      if (!std::isfinite(lse)) continue;
      least = std::min(least, lse);
      most = std::max(most, lse);
    }
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

  // Adds the weights of a side; shift is the common one in units of log 2, where there is one.
  void add(const Side<T>& side, const InfoNceBackward<T>& x, bool one_shift, double shift) {
    const Weights<T> to = view();
    const bool in = x.positives_in && !x.extra;
    for (int64_t i = 0; i < side.size; ++i) {
      const double g = side.grad_loss != nullptr ? side.grad_loss[i] : 0;
      const double h = side.grad_positive != nullptr ? side.grad_positive[i] : 0;
      const double lse = side.lse(i), count = side.count(i);
      const bool empty = lse == -std::numeric_limits<double>::infinity();
      double p = empty ? 0 : g * x.scale * (one_shift ? std::exp2(shift - lse * kLog2E) : 1);
      if (std::isinf(lse) && !empty) p = lse - lse;  // NaN
      // Of a lone positive, p - 1 is known without cancellation.
      const bool lone = in && count == 1;
      const double apart =
          lone ? g * std::expm1(-side.loss(i)) + h : (h - g) / std::max(count, 1.0);
      to.in_negative[i] += static_cast<T>(p);
      to.in_positive[i] += static_cast<T>(in && !lone ? p : 0);
      to.at_positive[i] += static_cast<T>(x.extra ? 0 : apart * x.scale);
      const double exponent = empty ? 0 : lse * kLog2E;
      to.lse[i] = static_cast<T>(exponent);
      to.lse_low[i] = std::isfinite(exponent) ? static_cast<T>(exponent - to.lse[i]) : T(0);
    }
  }

 private:
  int64_t size_;
  Buffer<T> all_;
};

}  // namespace

template <typename T>
void info_nce_backward(const InfoNceBackward<T>& x) {
  const bool columns = x.grad_col_loss != nullptr || x.grad_col_positive != nullptr;
  const Side<T> row_side{x.grad_loss, x.grad_positive, x.rows, x.n};
  const Side<T> col_side{x.grad_col_loss, x.grad_col_positive, x.cols, x.m};
  Spread spread;
  spread.add(row_side);
  if (columns) spread.add(col_side);
  // The largest lse becomes the shift: no power is above one, and at the other end only p below
  // exp(-27) underflow where the span is that of float.
  const double top = std::isfinite(spread.most) ? std::ceil(spread.most * kLog2E) : 0;
  const bool one_shift =
      !(spread.most - spread.least > kSpan<T> - 14) && std::abs(top) < 0x1p19 && reducible(x.scale);
  WeightsBuffer<T> rows(x.n), cols(columns && !x.symmetric ? x.m : 0);
  rows.add(row_side, x, one_shift, top);
  if (columns) (x.symmetric ? rows : cols).add(col_side, x, one_shift, top);
  Weights<T> across{};
  if (x.symmetric) {
    across = rows.view();
  } else if (columns) {
    across = cols.view();
  }
  accumulate<T>(x, {rows.view(), across, one_shift, static_cast<T>(one_shift ? top : 0),
                    x.symmetric, x.dq, x.dk});
  if (x.q_lengths != nullptr && x.dq != nullptr) {
    *x.dot = project(x.element, x.q, static_cast<const T*>(x.q_lengths), x.d, x.dq);
  }
  if (x.k_lengths != nullptr && x.dk != nullptr) {
    project(x.element, x.k, static_cast<const T*>(x.k_lengths), x.d, x.dk);
  }
}

template void info_nce_backward(const InfoNceBackward<float>&);
template void info_nce_backward(const InfoNceBackward<double>&);

}  // namespace fastcl::cpu
