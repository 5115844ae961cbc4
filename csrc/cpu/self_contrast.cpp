// The mean contrast of rows with each other and its gradient on the CPU:
//     s = scale z z^T without its diagonal,   loss_i = lse_i - mean positive,
//     dS = (p - y) / n,   dz = scale (dS + dS^T) z
// takes one and a half products where the tiles on one side of the diagonal fit kKept: they are
// formed once, summed, and written over by their gradient. More rows take a forward and a backward,
// which forms the similarities again.
#include <algorithm>
#include <memory>

#include "cpu/statistics.h"
#include "cpu/weights.h"

namespace fastcl::cpu {
namespace {

template <typename T>
class Triangle {
 public:
  explicit Triangle(const SelfContrastMean<T>& x)
      : x_(x),
        tiles_(x, schedule_of(x)),
        shift_(x),
        sums_(x.n, 1),
        kept_(tile_count(tiles_.schedule) * tiles_.tile_size()) {}

  static bool fits(const InfoNce& x) {
    const Schedule schedule = schedule_of(x);
    const int64_t tile = schedule.rows_per_block * (schedule.cols_per_block + kPadding);
    return tile_count(schedule) * tile * static_cast<int64_t>(sizeof(T)) <= kKept;
  }

  void forward();
  void backward(const Side<T>& side);

 private:
  static Schedule schedule_of(const InfoNce& x) {
    return Schedule(Order::kTriangle, x.n, x.n, x.d, 0);
  }
  static int64_t tile_count(const Schedule& schedule) {
    return schedule.row_blocks * (schedule.row_blocks + 1) / 2;
  }
  // The columns of a triangle below each other.
  T* at(const Pair& pair) const {
    return kept_.data() + (pair.col * (pair.col + 1) / 2 + pair.row) * tiles_.tile_size();
  }
  void fold(const Pair& pair, const Tile<T>& tile);

  const SelfContrastMean<T> x_;
  Tiles<T> tiles_;
  Shift<T> shift_;
  SumsBuffer<T> sums_;
  Buffer<T> kept_;
};

template <typename T>
void Triangle<T>::fold(const Pair& pair, const Tile<T>& tile) {
  const Sums<T> sums = sums_.slot(0);
  cpu::fold(tiles_, tile, pair, shift_, x_.positives_in, sums.at(tiles_.row_begin(pair.row)),
            pair.row != pair.col ? sums.at(tiles_.col_begin(pair.col)) : Sums<T>{}, false);
}

template <typename T>
void Triangle<T>::forward() {
  run(tiles_.schedule, tiles_.workers, [&](const Pair& pair, int64_t worker) {
    fold(pair, tiles_.similarities(pair, worker, at(pair)));
  });
  if (!shift_.online && damaged(sums_.slot(0), x_.n, x_.n - 1, x_.positives_in)) {
    shift_.online = true;
    sums_.clear();
    run(tiles_.schedule, tiles_.workers,
        [&](const Pair& pair, int64_t) { fold(pair, tiles_.tile(pair, at(pair))); });
  }
  put<T>(sums_.slot(0), x_.n, shift_, x_.scale, x_.positives_in, nullptr, x_.rows, x_.n, nullptr);
}

template <typename T>
void Triangle<T>::backward(const Side<T>& side) {
  Spread spread;
  spread.add(side, 0, x_.n);
  const Common common = Common::of<T>(spread, x_.scale);
  WeightsBuffer<T> buffer(x_.n);
  buffer.add(side, 0, x_.n, x_, false, common);
  const Weights<T> weights = buffer.view();
  std::fill_n(x_.dz, x_.n * x_.d, T(0));
  run(tiles_.schedule, tiles_.workers, [&](const Pair& pair, int64_t worker) {
    const Tile<T> tile = tiles_.tile(pair, at(pair));
    const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
    weigh(tiles_, tile, pair, common.one, static_cast<T>(common.shift), weights.at(row),
          weights.at(col));
    tiles_.times_k(tile, pair, worker, x_.dz + row * x_.d);
    if (row != col) tiles_.times_q(tile, pair, worker, x_.dz + col * x_.d);
  });
}

}  // namespace

template <typename T>
void self_contrast_mean(const SelfContrastMean<T>& x) {
  std::unique_ptr<Triangle<T>> triangle;
  if (x.dz != nullptr && Triangle<T>::fits(x)) {
    triangle = std::make_unique<Triangle<T>>(x);
    triangle->forward();
  } else {
    info_nce_forward<T>({x, nullptr, nullptr, x.rows, nullptr, nullptr, nullptr});
  }
  const auto counts = [&](int64_t i) { return !(x.rows[3 * x.n + i] == 0); };
  *x.loss = sum_of(0, x.n, [&](int64_t i) { return counts(i) ? x.rows[i] : T(0); }) / x.n;
  if (x.dz == nullptr) return;
  Buffer<T> grad(x.n);
  for (int64_t i = 0; i < x.n; ++i) grad[i] = counts(i) ? static_cast<T>(1.0 / x.n) : T(0);
  if (triangle == nullptr) {
    double dot = 0;
    return info_nce_backward<T>(
        {x, grad.data(), nullptr, nullptr, nullptr, x.rows, nullptr, false, x.dz, nullptr, &dot});
  }
  triangle->backward({grad.data(), nullptr, x.rows, x.n});
  if (x.q_lengths != nullptr) {
    project(x.dtype, x.q, static_cast<const T*>(x.q_lengths), x.d, x.dz);
  }
}

template void self_contrast_mean(const SelfContrastMean<float>&);
template void self_contrast_mean(const SelfContrastMean<double>&);

}  // namespace fastcl::cpu
