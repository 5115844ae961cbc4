// The product of pairs, over the operations of one instruction set. A block of sums is formed in
// vectors (eight rows by two vectors of sixteen, 16 independent chains), or in matrix registers
// where there are any (32 x 32: four accumulators, each square of a and b used twice), then scaled
// and stored.
#pragma once

#include <cstdint>

#include "cpu/pairs.h"

namespace fastcl::FASTCL_PAIRS {

using cpu::kPanel;
using cpu::kSide;
using cpu::kSquare;
using cpu::PairProduct;
using cpu::whole_squares;

constexpr int kLanes = 16;
constexpr int kBlockRows = 2 * kSide;

template <typename Vector, int R>
inline void vector_block(const PairProduct& x, int64_t i, const uint32_t* b, float* sums) {
  Vector block[R][2] = {};
  const uint32_t* a = x.a + i / kSide * kSide * whole_squares(x.pairs) + i % kSide * kSide;
  for (int64_t from = 0; from < x.pairs; from += kSide, a += kSquare) {
    const int64_t count = x.pairs - from < kSide ? x.pairs - from : kSide;
    for (int64_t k = 0; k < count; ++k, b += kPanel) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const uint32_t pair = a[r * kSide + k];
        block[r][0].add(pair, b);
        block[r][1].add(pair, b + kLanes);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    block[r][0].store(sums + r * kPanel);
    block[r][1].store(sums + r * kPanel + kLanes);
  }
}

// Sums [rows, kPanel] of rows from i.
template <typename Vector>
inline void vectors(const PairProduct& x, int64_t i, int64_t rows, const uint32_t* b, float* sums) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) vector_block<Vector, 8>(x, i + r, b, sums + r * kPanel);
  for (; r < rows; ++r) vector_block<Vector, 1>(x, i + r, b, sums + r * kPanel);
}

// The same of one square of rows, or of two.
template <typename Matrix, bool kTwo>
inline void matrices(const PairProduct& x, int64_t i, const uint32_t* b, float* sums) {
  constexpr int64_t line = sizeof(uint32_t) * kPanel, side = sizeof(uint32_t) * kSide;
  const int64_t depth = whole_squares(x.pairs);
  const uint32_t* a = x.a + i * depth;
  const uint32_t* below = a + kSide * depth;
  Matrix::template zero<0>();
  Matrix::template zero<1>();
  if constexpr (kTwo) {
    Matrix::template zero<2>();
    Matrix::template zero<3>();
  }
  for (int64_t k = 0; k < depth; k += kSide) {
    Matrix::template load<4>(a + k * kSide, side);
    Matrix::template load<6>(b + k * kPanel, line);
    Matrix::template load<7>(b + k * kPanel + kLanes, line);
    if constexpr (kTwo) Matrix::template load<5>(below + k * kSide, side);
    Matrix::template multiply<0, 4, 6>();
    Matrix::template multiply<1, 4, 7>();
    if constexpr (kTwo) {
      Matrix::template multiply<2, 5, 6>();
      Matrix::template multiply<3, 5, 7>();
    }
  }
  Matrix::template store<0>(sums, line);
  Matrix::template store<1>(sums + kLanes, line);
  if constexpr (kTwo) {
    Matrix::template store<2>(sums + kSide * kPanel, line);
    Matrix::template store<3>(sums + kSide * kPanel + kLanes, line);
  }
}

template <bool kWhole>
inline void write(const PairProduct& x, int64_t i, int64_t rows, int64_t col, const float* sums) {
  const int64_t valid = kWhole ? kPanel : x.width - col;
  for (int64_t r = 0; r < rows; ++r, sums += kPanel) {
    float* out = x.out + (i + r) * x.stride + col;
    const float* by = x.col_factor + col;
    const float factor = x.factor == nullptr ? 1 : x.factor[i + r];
    if (x.factor == nullptr && x.accumulate) {
      for (int64_t j = 0; j < valid; ++j) out[j] += sums[j];
    } else if (x.factor == nullptr) {
      for (int64_t j = 0; j < valid; ++j) out[j] = sums[j];
    } else if (x.accumulate) {
      for (int64_t j = 0; j < valid; ++j) out[j] += sums[j] * (factor * by[j]);
    } else {
      for (int64_t j = 0; j < valid; ++j) out[j] = sums[j] * (factor * by[j]);
    }
  }
}

template <typename Vector, typename Matrix>
inline void product(const PairProduct& x) {
  Matrix::configure();
  alignas(64) float sums[kBlockRows * kPanel];
  for (int64_t col = 0; col < x.width; col += kPanel) {
    const uint32_t* b = x.b + col * whole_squares(x.pairs);
    for (int64_t i = 0; i < x.rows; i += kBlockRows) {
      const int64_t rows = x.rows - i < kBlockRows ? x.rows - i : kBlockRows;
      // Lines of out lie far apart: they are on their way while their sums are formed.
      for (int64_t r = 0; r < rows; ++r) {
        const float* out = x.out + (i + r) * x.stride + col;
        __builtin_prefetch(out, 1);
        __builtin_prefetch(out + kPanel / 2, 1);
      }
      if constexpr (!Matrix::kExists) {
        vectors<Vector>(x, i, rows, b, sums);
      } else if (rows > kSide) {
        matrices<Matrix, true>(x, i, b, sums);
      } else {
        matrices<Matrix, false>(x, i, b, sums);
      }
      if (x.width - col < kPanel) {
        write<false>(x, i, rows, col, sums);
      } else {
        write<true>(x, i, rows, col, sums);
      }
    }
  }
  Matrix::release();
}

struct NoMatrix {
  static constexpr bool kExists = false;
  static void configure() {}
  static void release() {}
};

// The vectors of a set that forms all sums in matrix registers.
struct NoVector {};

}  // namespace fastcl::FASTCL_PAIRS
