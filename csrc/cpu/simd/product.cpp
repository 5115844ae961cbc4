// Products of tiles: out [rows, width] (+)= a [rows, depth] b [depth, width], with a element by
// element as it lies and b in panels of up to three vectors, each row of a panel end to end.
// Four rows (eight with 32 registers) times three vectors of sums stay in registers: twelve
// independent chains hide the latency of a fused multiply-add, and a row of a costs one broadcast.
// Every sum runs over depth in order, so its bits do not depend on the tile it belongs to.
#include "cpu/float16.h"
#include "cpu/simd/passes.h"
#include "cpu/simd/transpose.h"

namespace fastcl::FASTCL_SIMD {
namespace {

#if defined(__aarch64__)
constexpr int kRows = 8;
#else
constexpr int kRows = kBytes == 64 ? 8 : 4;
#endif

// Elements of a cache line: rows of a to come are asked for that much at a time, or each would wait
// for the prefetcher of the processor to see it coming.
template <typename T>
constexpr int64_t kLine = 64 / sizeof(T);

// Vectors in the next panel. One vector alone would leave too few chains: four are two and two.
inline int panel_vectors(int64_t left) {
  if (left == 4 || left == 2) return 2;
  return left < 3 ? 1 : 3;
}

// f(first vector, vectors) for every panel of `width` elements.
template <typename T, typename F>
inline void for_panels(int64_t width, const F& f) {
  const int64_t vectors = (width + kWidth<T> - 1) / kWidth<T>;
  for (int64_t v = 0; v < vectors;) {
    const int count = panel_vectors(vectors - v);
    f(v, count);
    v += count;
  }
}

template <typename T>
struct Output {
  T* out;           // [rows, stride]
  int64_t stride;   // elements between rows
  const T* factor;  // [rows] and [width], what the sums are multiplied with, or null
  const T* col_factor;
  bool accumulate;
};

// R rows times W vectors; `valid` elements of the last vector are stored.
template <typename T, int R, int W>
inline void block(const T* a, int64_t row, int64_t step, const T* b, int64_t depth,
                  const Output<T>& to, int64_t valid) {
  using V = Vector<T>;
  V sums[R][W];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    T* out = to.out + r * to.stride;
    __builtin_prefetch(out, 1);
    __builtin_prefetch(out + W * kWidth<T> - 1, 1);
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) sums[r][w] = V{};
  }
  const auto multiply = [&](int64_t k) __attribute__((always_inline)) {
    V line[W];
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) line[w] = load<V>(b + (k * W + w) * kWidth<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V x = splat<T>(a[r * row + k * step]);
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) sums[r][w] += x * line[w];
    }
  };
  int64_t k = 0;
  if (step == 1) {
    for (; k + kLine<T> <= depth; k += kLine<T>) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(a + (R + r) * row + k);
#pragma GCC unroll 4
      for (int64_t l = 0; l < kLine<T>; ++l) multiply(k + l);
    }
  }
#pragma GCC unroll 4
  for (; k < depth; ++k) multiply(k);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    T* out = to.out + r * to.stride;
    const V factor = splat<T>(to.factor == nullptr ? T(1) : to.factor[r]);
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      if (to.factor != nullptr) sums[r][w] *= factor * load<V>(to.col_factor + w * kWidth<T>);
      T* at = out + w * kWidth<T>;
      if (w < W - 1 || valid == kWidth<T>) {
        store(at, to.accumulate ? load<V>(at) + sums[r][w] : sums[r][w]);
      } else {
        T last[kWidth<T>];
        store(last, sums[r][w]);
        for (int64_t l = 0; l < valid; ++l) at[l] = to.accumulate ? at[l] + last[l] : last[l];
      }
    }
  }
}

template <typename T, int W>
inline void panel(const T* a, int64_t row, int64_t step, int64_t rows, const T* b, int64_t depth,
                  const Output<T>& to, int64_t valid) {
  const auto at = [&](int64_t i) {
    const T* factor = to.factor == nullptr ? nullptr : to.factor + i;
    return Output<T>{to.out + i * to.stride, to.stride, factor, to.col_factor, to.accumulate};
  };
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    block<T, kRows, W>(a + i * row, row, step, b, depth, at(i), valid);
  }
  if constexpr (kRows == 8) {
    if (rows - i >= 4) {
      block<T, 4, W>(a + i * row, row, step, b, depth, at(i), valid);
      i += 4;
    }
  }
  if (rows - i >= 2) {
    block<T, 2, W>(a + i * row, row, step, b, depth, at(i), valid);
    i += 2;
  }
  if (rows > i) block<T, 1, W>(a + i * row, row, step, b, depth, at(i), valid);
}

template <typename E, typename T>
inline void convert(const E* x, T factor, int64_t n, T* to) {
  for (int64_t j = 0; j < n; ++j) to[j] = static_cast<T>(fastcl::widen(x[j])) * factor;
}

template <typename T>
inline void row_to(const Block<T>& x, int64_t i, int64_t from, int64_t n, T* to) {
  const T factor = x.factors == nullptr ? T(1) : x.factors[i];
  if (x.dtype == Dtype::kFloat16) {
    convert(static_cast<const Half*>(x.rows[i]) + from, factor, n, to);
  } else if (x.dtype == Dtype::kBFloat16) {
    convert(static_cast<const BFloat16*>(x.rows[i]) + from, factor, n, to);
  } else {
    convert(static_cast<const T*>(x.rows[i]) + from, factor, n, to);
  }
}

// Lanes x lanes elements from rows to columns, `line` apart.
template <typename T>
inline void turn_whole(const Block<T>& x, int64_t row, int64_t from, T* out, int64_t line) {
  using V = Vector<T>;
  constexpr int lanes = kWidth<T>;
  V block[lanes];
  const bool ahead = row + 2 * lanes <= x.size;
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) {
    block[l] = load<V>(static_cast<const T*>(x.rows[row + l]) + from);
    if (ahead) __builtin_prefetch(static_cast<const T*>(x.rows[row + lanes + l]) + from);
  }
  if (x.factors != nullptr) {
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) block[l] *= splat<T>(x.factors[row + l]);
  }
  transpose<T>(block);
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) store(out + l * line, block[l]);
}

// The same of fewer rows or columns, or of half precision; rows that are not there are zero.
template <typename T>
inline void turn_part(const Block<T>& x, int64_t row, int64_t rows, int64_t from, int64_t cols,
                      T* out, int64_t line) {
  constexpr int lanes = kWidth<T>;
  T strip[lanes * lanes] = {};
  for (int64_t l = 0; l < rows; ++l) row_to(x, row + l, from, cols, strip + l * lanes);
  Vector<T> block[lanes];
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) block[l] = load<Vector<T>>(strip + l * lanes);
  transpose<T>(block);
  for (int64_t l = 0; l < cols; ++l) store(out + l * line, block[l]);
}

}  // namespace

template <typename T>
void product(const T* a, int64_t row, int64_t step, int64_t rows, const T* b, int64_t depth,
             int64_t width, const T* factor, const T* col_factor, T* out, int64_t stride,
             bool accumulate, bool padded) {
  for_panels<T>(width, [&](int64_t first, int count) {
    const int64_t at = first * kWidth<T>, left = width - at;
    const int64_t full = static_cast<int64_t>(count) * kWidth<T>;
    const int64_t valid = padded || left >= full ? kWidth<T> : left - (full - kWidth<T>);
    const T* from = b + at * depth;
    const Output<T> to{out + at, stride, factor, factor == nullptr ? nullptr : col_factor + at,
                       accumulate};
    if (count == 3) return panel<T, 3>(a, row, step, rows, from, depth, to, valid);
    if (count == 2) return panel<T, 2>(a, row, step, rows, from, depth, to, valid);
    panel<T, 1>(a, row, step, rows, from, depth, to, valid);
  });
}

template <typename T>
void copy_rows(const Block<T>& x, int64_t from, int64_t cols, T* to) {
  for (int64_t i = 0; i < x.size; ++i) row_to(x, i, from, cols, to + i * cols);
}

template <typename T>
void pack_rows(const Block<T>& x, int64_t from, int64_t cols, T* to) {
  for_panels<T>(cols, [&](int64_t first, int count) {
    const int64_t at = first * kWidth<T>, full = static_cast<int64_t>(count) * kWidth<T>;
    const int64_t valid = cols - at < full ? cols - at : full;
    T* out = to + at * x.size;
    for (int64_t i = 0; i < x.size; ++i, out += full) {
      row_to(x, i, from + at, valid, out);
      for (int64_t j = valid; j < full; ++j) out[j] = 0;
    }
  });
}

template <typename T>
void pack_columns(const Block<T>& x, int64_t from, int64_t cols, T* to) {
  constexpr int lanes = kWidth<T>;
  const bool wide = x.dtype == Dtype::kFloat32 || x.dtype == Dtype::kFloat64;
  for_panels<T>(x.size, [&](int64_t first, int count) {
    T* panel = to + first * lanes * cols;
    const int64_t line = static_cast<int64_t>(count) * lanes;  // elements of a row of the panel
    for (int w = 0; w < count; ++w) {
      const int64_t row = (first + w) * lanes;
      const int64_t rows = x.size - row < lanes ? x.size - row : lanes;
      T* out = panel + w * lanes;
      int64_t j = 0;
      if (wide && rows == lanes) {
        for (; j + lanes <= cols; j += lanes, out += lanes * line) {
          turn_whole(x, row, from + j, out, line);
        }
      }
      for (; j < cols; j += lanes, out += lanes * line) {
        turn_part(x, row, rows, from + j, cols - j < lanes ? cols - j : lanes, out, line);
      }
    }
  });
}

#define FASTCL_INSTANCE(T)                                                                         \
  template void product(const T*, int64_t, int64_t, int64_t, const T*, int64_t, int64_t, const T*, \
                        const T*, T*, int64_t, bool, bool);                                        \
  template void copy_rows(const Block<T>&, int64_t, int64_t, T*);                                  \
  template void pack_rows(const Block<T>&, int64_t, int64_t, T*);                                  \
  template void pack_columns(const Block<T>&, int64_t, int64_t, T*);
FASTCL_INSTANCE(float)
FASTCL_INSTANCE(double)
#undef FASTCL_INSTANCE

}  // namespace fastcl::FASTCL_SIMD
