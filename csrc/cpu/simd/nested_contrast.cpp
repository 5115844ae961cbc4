// Passes over a tile of a contrast at nested widths: with cosines c_ij = products_ij row_i col_j,
//     row i += sum_j 2^(scale (c_ij - most_i)),     G_ij = wider_ij + p_ij row_i col_j
// where row and column now hold what the gradient weighs them with. The diagonal, whose p - 1 is
// known without cancellation, stays out of the sums.
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {
namespace {

// The element of a row on the diagonal, if it lies in the tile.
template <typename T>
T* on_diagonal(const Tile<T>& tile, T* s, int64_t i, int64_t self) {
  const int64_t own = i + self;
  return own >= 0 && own < tile.cols ? s + own : nullptr;
}

template <typename T>
T largest(const T* s, int64_t cols) {
  using V = Vector<T>;
  V most = splat<T>(-__builtin_inf());
  for (int64_t j = 0; j < cols; j += kWidth<T>) most = at_least(most, load<V>(s + j));
  T found = most[0];
  for (int l = 1; l < kWidth<T>; ++l) found = most[l] > found ? most[l] : found;
  return found;
}

}  // namespace

template <typename T>
void nested_fold(Tile<T> products, const T* row, const T* col, Scale<T> scale, int64_t self,
                 Sums<T> rows, T* to) {
  using V = Vector<T>;
  const V none = splat<T>(-__builtin_inf());
  for (int64_t i = 0; i < products.rows; ++i) {
    const T* from = products.s + i * products.stride;
    T* s = to + i * products.stride;
    const V factor = splat<T>(row[i]);
    for (int64_t j = 0; j < products.cols; j += kWidth<T>) {
      store(s + j, load<V>(from + j) * (factor * load<V>(col + j)));
    }
    store(s + products.cols, none);
    T* const own = on_diagonal(products, s, i, self);
    const T positive = own != nullptr ? *own : T(0);
    if (rows.negative == nullptr) {
      store(s + products.cols, V{});
      continue;
    }
    if (own != nullptr) *own = none[0];
    const V most = splat<T>(raise(rows, i, largest(s, products.cols), scale));
    V powers{};
    for (int64_t j = 0; j < products.cols; j += kWidth<T>) {
      powers += shifted<T>(load<V>(s + j), scale, most);
    }
    rows.negative[i] += sum<T>(powers);
    store(s + products.cols, V{});  // times p, it must not be NaN
    if (own == nullptr) continue;
    rows.logit[i] += positive;
    *own = positive;
  }
}

template <typename T>
void nested_gradient(Tile<T> tile, const T* wider, NestedWeights<T> x, Scale<T> scale,
                     int64_t self) {
  using V = Vector<T>;
  T down[cpu::kMaxColumns + kPadding] = {};
  for (int64_t i = 0; i < tile.rows; ++i) {
    T* s = tile.s + i * tile.stride;
    const T* more = wider != nullptr ? wider + i * tile.stride : nullptr;
    T* const own = on_diagonal(tile, s, i, self);
    if (own != nullptr) *own = 0;
    const V pivot = splat<T>(x.pivot[i]), rest = splat<T>(x.rest[i]), row = splat<T>(x.row[i]);
    V across{};
    for (int64_t j = 0; j < tile.cols; j += kWidth<T>) {
      const V cosine = load<V>(s + j), p = probability<T>(cosine, scale, pivot, rest);
      const V g = p * row * load<V>(x.col + j);
      across += p * cosine;
      store(down + j, load<V>(down + j) + p * cosine);
      store(s + j, more != nullptr ? load<V>(more + j) + g : g);
    }
    x.row_slope[i] += sum<T>(across);
    if (own == nullptr) continue;
    const int64_t j = own - s;
    *own = x.own[i] * x.col[j] + (more != nullptr ? more[j] : T(0));
  }
  for (int64_t j = 0; j < tile.cols; ++j) x.col_slope[j] += down[j];
}

#define FASTCL_INSTANCE(T)                                                                \
  template void nested_fold(Tile<T>, const T*, const T*, Scale<T>, int64_t, Sums<T>, T*); \
  template void nested_gradient(Tile<T>, const T*, NestedWeights<T>, Scale<T>, int64_t);
FASTCL_INSTANCE(float)
FASTCL_INSTANCE(double)
#undef FASTCL_INSTANCE

}  // namespace fastcl::FASTCL_SIMD
