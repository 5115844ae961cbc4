// The backward of the softmax contrast on the CPU: with p_ij = exp(s_ij - lse_i) over the
// denominator and y_ij = 1 / |P(i)| on the positives,
//     dS_ij = grad_loss_i (p_ij - y_ij) + grad_positive_i y_ij,  and the same down the columns,
//     dq = scale dS k,   dk = scale dS^T q.
// Similarities are formed again, a tile at a time, and overwritten by dS. One exponential serves
// rows and columns, 2^(s - shift) (a_i + b_j), unless their lse are too far apart. Where k is q a
// tile on one side of the diagonal holds dS + dS^T and serves both of its blocks.
#include <algorithm>

#include "cpu/weights.h"

namespace fastcl::cpu {

template <typename T>
void accumulate(const Divided<T>& x, const Gradient<T>& g) {
  if (g.dq == nullptr && g.dk == nullptr) return;
  const Order order = g.mirrored        ? Order::kTriangle
                      : g.dk != nullptr ? Order::kSquare
                                        : Order::kRows;
  Tiles<T> tiles(x, Schedule(order, x.n, x.m, x.d, x.d * sizeof(T)));
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
    const Tile<T> tile = tiles.similarities(pair, worker);
    const int64_t row = tiles.row_begin(pair.row), col = tiles.col_begin(pair.col);
    weigh(tiles, tile, pair, g.one_shift, g.shift, g.rows.at(row),
          both ? g.cols.at(col) : Weights<T>{});
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

template void accumulate(const Divided<float>&, const Gradient<float>&);
template void accumulate(const Divided<double>&, const Gradient<double>&);

template <typename T>
void backward(const Divided<T>& x, const ContrastBackward<T>& given, T* dq, T* dk) {
  const bool columns = given.grad_col_loss != nullptr || given.grad_col_positive != nullptr;
  const Side<T> row_side{given.grad_loss, given.grad_positive, given.rows, x.n};
  const Side<T> col_side{given.grad_col_loss, given.grad_col_positive, given.cols, x.m};
  Spread spread;
  spread.add(row_side, 0, x.n);
  if (columns) spread.add(col_side, 0, x.m);
  const Common common = Common::of<T>(spread, x.scale);
  WeightsBuffer<T> rows(x.n), cols(columns && !x.symmetric ? x.m : 0);
  rows.add(row_side, 0, x.n, x, common);
  if (columns) (x.symmetric ? rows : cols).add(col_side, 0, x.m, x, common);
  Weights<T> across{};
  if (x.symmetric) {
    across = rows.view();
  } else if (columns) {
    across = cols.view();
  }
  accumulate<T>(
      x, {rows.view(), across, common.one, static_cast<T>(common.shift), x.symmetric, dq, dk});
}

template void backward(const Divided<float>&, const ContrastBackward<float>&, float*, float*);
template void backward(const Divided<double>&, const ContrastBackward<double>&, double*, double*);

}  // namespace fastcl::cpu
