// Backward passes over a tile: similarities become the gradient of the loss to them,
//     G_ij = E_ij (a_i + b_j),  at a positive  E_ij (a'_i + b'_j) + (c_i + d_j),  0 for the row
//     itself
// with the statistics and the scale folded into the weights of rows and columns.
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {
namespace {

template <typename T, bool kCols>
void plain(Tile<T> tile, const Exponential<T>& power, Weights<T> rows, Weights<T> cols) {
  using V = Vector<T>;
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* s = tile.s + i * tile.stride;
    const V row = splat<T>(rows.in_negative[i]);
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      V weight = row;
      if constexpr (kCols) weight += load<V>(cols.in_negative + j);
      store(s + j, power(load<V>(s + j)) * weight);
    }
  }
}

}  // namespace

template <typename T>
void gradient(Tile<T> tile, Scale<T> scale, T shift, Weights<T> rows, Weights<T> cols) {
  const Exponential<T> power(scale.high, scale.low, shift, true);
  if (cols.in_negative != nullptr) return plain<T, true>(tile, power, rows, cols);
  plain<T, false>(tile, power, rows, cols);
}

template <typename T>
void gradient_matching(Tile<T> tile, Match<T> match, Scale<T> scale, T shift, Weights<T> rows,
                       Weights<T> cols) {
  using V = Vector<T>;
  const bool both = cols.in_negative != nullptr;
  const Exponential<T> power(scale.high, scale.low, shift, true);
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* s = tile.s + i * tile.stride;
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Lane<T> lane(match, i, j);
      const V e = power(load<V>(s + j));
      V out = splat<T>(rows.in_negative[i]);
      V in = splat<T>(rows.in_positive[i]), apart = splat<T>(rows.at_positive[i]);
      if (both) {
        out += load<V>(cols.in_negative + j);
        in += load<V>(cols.in_positive + j);
        apart += load<V>(cols.at_positive + j);
      }
      store(s + j, where<T>(lane.negative, e * out) + where<T>(lane.same, e * in + apart));
    }
  }
}

template <typename T>
void gradient_online(Tile<T> tile, Match<T> match, Scale<T> scale, Weights<T> rows,
                     Weights<T> cols) {
  using V = Vector<T>;
  const bool both = cols.in_negative != nullptr;
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* at = tile.s + i * tile.stride;
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const Lane<T> lane(match, i, j);
      const V s = load<V>(at + j);
      const V p = probability<T>(s, scale, splat<T>(rows.pivot[i]), splat<T>(rows.rest[i]));
      V out = p * rows.in_negative[i];
      V same = p * rows.in_positive[i] + rows.at_positive[i];
      if (both) {
        const V down = probability<T>(s, scale, load<V>(cols.pivot + j), load<V>(cols.rest + j));
        out += down * load<V>(cols.in_negative + j);
        same += down * load<V>(cols.in_positive + j) + load<V>(cols.at_positive + j);
      }
      store(at + j, where<T>(lane.negative, out) + where<T>(lane.same, same));
    }
  }
}

#define FASTCL_INSTANCE(T)                                                                 \
  template void gradient(Tile<T>, Scale<T>, T, Weights<T>, Weights<T>);                    \
  template void gradient_matching(Tile<T>, Match<T>, Scale<T>, T, Weights<T>, Weights<T>); \
  template void gradient_online(Tile<T>, Match<T>, Scale<T>, Weights<T>, Weights<T>);
FASTCL_INSTANCE(float)
FASTCL_INSTANCE(double)
#undef FASTCL_INSTANCE

}  // namespace fastcl::FASTCL_SIMD
