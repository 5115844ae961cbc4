// sigmoid_contrast on the CPU (Zhai et al. 2023, equation 1): no pair needs to know of another, so
// one pass over the tiles forms loss and both gradients, three products in all.
#include <algorithm>

#include "cpu/prepared.h"

namespace fastcl::cpu {
namespace {

template <typename T>
void all_pairs(const Divided<T>& x, const SigmoidContrast<T>& to) {
  const Order order = to.dk != nullptr ? Order::kSquare : Order::kRows;
  const int64_t row_bytes = to.dq != nullptr ? x.d * sizeof(T) : 3 * sizeof(double);
  Tiles<T> tiles(x, Schedule(order, x.n, x.m, x.d, row_bytes));
  const int64_t slots = tiles.schedule.slots, blocks = tiles.schedule.row_blocks;
  Buffer<double> sums(3 * slots * blocks, 0.0);  // of a block of rows in a chunk of columns
  Buffer<T> chunks;
  T* dq = to.dq;
  if (dq != nullptr && slots > 1) {
    chunks = Buffer<T>(slots * x.n * x.d, T(0));
    dq = chunks.data();
  } else if (dq != nullptr) {
    std::fill_n(dq, x.n * x.d, T(0));
  }
  if (to.dk != nullptr) std::fill_n(to.dk, x.m * x.d, T(0));
  run(tiles.schedule, tiles.workers, [&](const Pair& pair, int64_t worker) {
    const Tile<T> tile = tiles.similarities(pair, worker);
    simd<T>().logistic(tile, tiles.match(pair), tiles.scale, static_cast<T>(to.bias * kLog2E),
                       static_cast<T>(x.scale), x.positives_in,
                       sums.data() + 3 * (pair.slot * blocks + pair.row));
    const int64_t row = tiles.row_begin(pair.row), col = tiles.col_begin(pair.col);
    if (dq != nullptr) tiles.times_k(tile, pair, worker, dq + (pair.slot * x.n + row) * x.d);
    if (to.dk != nullptr) tiles.times_q(tile, pair, worker, to.dk + col * x.d);
  });
  std::fill_n(to.sums, 3, 0.0);
  for (int64_t i = 0; i < slots * blocks; ++i) {
    for (int64_t l = 0; l < 3; ++l) to.sums[l] += sums[3 * i + l];
  }
  if (to.dq == nullptr || slots == 1) return;
  std::copy_n(chunks.data(), x.n * x.d, to.dq);
  for (int64_t s = 1; s < slots; ++s) {
    const T* from = chunks.data() + s * x.n * x.d;
    for (int64_t i = 0; i < x.n * x.d; ++i) to.dq[i] += from[i];
  }
}

}  // namespace

template <typename T>
void sigmoid_contrast(const SigmoidContrast<T>& x) {
  Prepared<T> prepared(x.problem);
  all_pairs(prepared.problem(), x);
  prepared.finish([](int64_t) { return 0; }, {x.dq, x.dk, nullptr, nullptr});
}

template void sigmoid_contrast(const SigmoidContrast<float>&);
template void sigmoid_contrast(const SigmoidContrast<double>&);

}  // namespace fastcl::cpu
