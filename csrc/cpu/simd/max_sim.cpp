// Late interaction: the best column of every row of a tile, and rows added where numbers say.
#include "cpu/float16.h"
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {
namespace {

template <typename E, typename T>
void add(const Lines<T>& from, const int32_t* from_at, int64_t count, int64_t d, T weight, T* to,
         const int32_t* to_at) {
  const E* rows = static_cast<const E*>(from.data);
  for (int64_t l = 0; l < count; ++l) {
    const int64_t source = from_at == nullptr ? l : from_at[l];
    const E* x = rows + source * d;
    T* out = to + (to_at == nullptr ? l : to_at[l]) * d;
    const T factor = from.factors == nullptr ? weight : weight * from.factors[source];
    for (int64_t c = 0; c < d; ++c) out[c] += factor * static_cast<T>(widen(x[c]));
  }
}

}  // namespace

template <typename T>
void best_columns(Tile<T> tile, int32_t first, T* best, int32_t* at) {
  using V = Vector<T>;
  constexpr int lanes = kWidth<T>;
  const Integer<T> left = iota<T>() < static_cast<Code<T>>(tile.cols % lanes);
  for (int64_t i = 0; i < tile.rows; ++i) {
    const T* s = tile.s + i * tile.stride;
    V most = splat<T>(-__builtin_inf());
    Integer<T> where{}, column = iota<T>();
    const auto take = [&](V x) __attribute__((always_inline)) {
      const Integer<T> more = (x > most) | (x != x);
      most = more ? x : most;
      where = more ? column : where;
      column += static_cast<Code<T>>(lanes);
    };
    int64_t j = 0;
    for (; j + lanes <= tile.cols; j += lanes) take(load<V>(s + j));
    if (j < tile.cols) take(left ? load<V>(s + j) : splat<T>(-__builtin_inf()));
    for (int l = 0; l < lanes; ++l) {
      const int32_t place = first + static_cast<int32_t>(where[l]);
      const bool above = most[l] > best[i] || (most[l] == best[i] && place < at[i]);
      if ((above && best[i] == best[i]) || most[l] != most[l]) {
        best[i] = most[l];
        at[i] = place;
      }
    }
  }
}

template <typename T>
void add_rows(const Lines<T>& from, const int32_t* from_at, int64_t count, int64_t d, T weight,
              T* to, const int32_t* to_at) {
  if (from.dtype == Dtype::kFloat16) {
    add<Half>(from, from_at, count, d, weight, to, to_at);
  } else if (from.dtype == Dtype::kBFloat16) {
    add<BFloat16>(from, from_at, count, d, weight, to, to_at);
  } else {
    add<T>(from, from_at, count, d, weight, to, to_at);
  }
}

#define FASTCL_INSTANCE(T)                                    \
  template void best_columns(Tile<T>, int32_t, T*, int32_t*); \
  template void add_rows(const Lines<T>&, const int32_t*, int64_t, int64_t, T, T*, const int32_t*);
FASTCL_INSTANCE(float)
FASTCL_INSTANCE(double)
#undef FASTCL_INSTANCE

}  // namespace fastcl::FASTCL_SIMD
