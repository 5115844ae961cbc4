// The mean contrast of rows with each other and its gradient on the CPU:
//     s = scale z z^T without its diagonal,   loss_i = lse_i - mean positive,
//     dS = (p - y) / n,   dz = scale (dS + dS^T) z
// takes one and a half products where the tiles on one side of the diagonal fit kKept: they are
// formed once, summed, and written over by their gradient. More rows take a forward and a backward,
// which forms the similarities again.
#include <algorithm>

#include "cpu/statistics.h"
#include "cpu/weights.h"

namespace fastcl::cpu {
namespace {

template <typename T>
class Triangle {
 public:
  Triangle(const Divided<T>& x, T* rows, T* dz)
      : x_(x),
        rows_(rows),
        dz_(dz),
        in_(x.positives_in && !x.has_own()),
        tiles_(x, schedule_of(x)),
        shift_(x),
        sums_(x.n, 1),
        kept_(tile_count(tiles_.schedule) * tiles_.tile_size()) {}

  static bool fits(const Problem& x) {
    const Schedule schedule = schedule_of(x);
    const int64_t tile = schedule.rows_per_block * (schedule.cols_per_block + kPadding);
    return tile_count(schedule) * tile * static_cast<int64_t>(sizeof(T)) <= kKept;
  }

  void forward();
  void backward();

 private:
  static Schedule schedule_of(const Problem& x) {
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

  const Divided<T> x_;
  T *const rows_, *const dz_;
  const bool in_;  // positives are part of the sums
  Tiles<T> tiles_;
  Shift<T> shift_;
  SumsBuffer<T> sums_;
  Buffer<T> kept_;
};

template <typename T>
void Triangle<T>::fold(const Pair& pair, const Tile<T>& tile) {
  const Sums<T> sums = sums_.slot(0);
  cpu::fold(tiles_, tile, pair, shift_, in_, sums.at(tiles_.row_begin(pair.row)),
            pair.row != pair.col ? sums.at(tiles_.col_begin(pair.col)) : Sums<T>{}, false);
}

template <typename T>
void Triangle<T>::forward() {
  run(tiles_.schedule, tiles_.workers, [&](const Pair& pair, int64_t worker) {
    fold(pair, tiles_.similarities(pair, worker, at(pair)));
  });
  if (!shift_.online && damaged(sums_.slot(0), x_.n, x_.n - 1, in_)) {
    shift_.online = true;
    sums_.clear();
    run(tiles_.schedule, tiles_.workers,
        [&](const Pair& pair, int64_t) { fold(pair, tiles_.tile(pair, at(pair))); });
  }
  put<T>(sums_.slot(0), x_.n, shift_, x_.scale, in_, x_.extra, rows_, x_.n, nullptr);
}

template <typename T>
void Triangle<T>::backward() {
  Buffer<T> grad(x_.n);
  for (int64_t i = 0; i < x_.n; ++i) grad[i] = static_cast<T>(upstream_of_row(x_, rows_, i));
  const Side<T> side{grad.data(), nullptr, rows_, x_.n};
  Spread spread;
  spread.add(side, 0, x_.n);
  const Common common = Common::of<T>(spread, x_.scale);
  WeightsBuffer<T> buffer(x_.n);
  buffer.add(side, 0, x_.n, x_, common);
  const Weights<T> weights = buffer.view();
  std::fill_n(dz_, x_.n * x_.d, T(0));
  run(tiles_.schedule, tiles_.workers, [&](const Pair& pair, int64_t worker) {
    const Tile<T> tile = tiles_.tile(pair, at(pair));
    const int64_t row = tiles_.row_begin(pair.row), col = tiles_.col_begin(pair.col);
    weigh(tiles_, tile, pair, common.one, static_cast<T>(common.shift), weights.at(row),
          weights.at(col));
    tiles_.times_k(tile, pair, worker, dz_ + row * x_.d);
    if (row != col) tiles_.times_q(tile, pair, worker, dz_ + col * x_.d);
  });
}

}  // namespace

template <typename T>
bool triangle_serves(const Divided<T>& x) {
  return Triangle<T>::fits(x);
}

template <typename T>
void in_triangle(const Divided<T>& x, T* rows, T* dz) {
  Triangle<T> triangle(x, rows, dz);
  triangle.forward();
  triangle.backward();
}

template bool triangle_serves(const Divided<float>&);
template bool triangle_serves(const Divided<double>&);
template void in_triangle(const Divided<float>&, float*, float*);
template void in_triangle(const Divided<double>&, double*, double*);

}  // namespace fastcl::cpu
