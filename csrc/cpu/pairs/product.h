// The product of pairs, over the operations of one instruction set. A block of sums is formed in
// vectors (eight rows by two vectors of sixteen, 16 independent chains), or in matrix registers
// where there are any (32 x 32: four accumulators, each tile of a and b used twice), then scaled
// and stored.
#pragma once

#include <cstdint>

#include "cpu/pairs.h"

namespace fastcl::FASTCL_PAIRS {

using cpu::kPanel;
using cpu::PairProduct;

constexpr int kLanes = 16;
constexpr int kMatrixRows = 32;
constexpr int64_t kMatrixDepth = 16;  // pairs in a row of a matrix register

template <typename Vector, int R>
inline void vector_block(const PairProduct& x, int64_t i, const uint32_t* b, int64_t from,
                         float* sums) {
  Vector block[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    block[r][0] = Vector::load(sums + r * kPanel);
    block[r][1] = Vector::load(sums + r * kPanel + kLanes);
  }
  for (int64_t k = from; k < x.depth; ++k) {
    const uint32_t* line = b + k * kPanel;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const uint32_t pair = x.a[(i + r) * x.row + k];
      block[r][0].add(pair, line);
      block[r][1].add(pair, line + kLanes);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    block[r][0].store(sums + r * kPanel);
    block[r][1].store(sums + r * kPanel + kLanes);
  }
}

// Sums of rows i .. i + rows over pairs from .. depth, added to sums [rows, kPanel].
template <typename Vector>
inline void vectors(const PairProduct& x, int64_t i, int64_t rows, const uint32_t* b, int64_t from,
                    float* sums) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) vector_block<Vector, 8>(x, i + r, b, from, sums + r * kPanel);
  for (; r < rows; ++r) vector_block<Vector, 1>(x, i + r, b, from, sums + r * kPanel);
}

template <typename Matrix>
inline void matrices(const PairProduct& x, int64_t i, const uint32_t* b, int64_t depth,
                     float* sums) {
  constexpr int64_t line = sizeof(uint32_t) * kPanel, half = kMatrixRows / 2;
  const int64_t row = sizeof(uint32_t) * x.row;
  Matrix::template zero<0>();
  Matrix::template zero<1>();
  Matrix::template zero<2>();
  Matrix::template zero<3>();
  for (int64_t k = 0; k < depth; k += kMatrixDepth) {
    Matrix::template load<4>(x.a + i * x.row + k, row);
    Matrix::template load<5>(x.a + (i + half) * x.row + k, row);
    Matrix::template load<6>(b + k * kPanel, line);
    Matrix::template load<7>(b + k * kPanel + kLanes, line);
    Matrix::template multiply<0, 4, 6>();
    Matrix::template multiply<1, 4, 7>();
    Matrix::template multiply<2, 5, 6>();
    Matrix::template multiply<3, 5, 7>();
  }
  Matrix::template store<0>(sums, line);
  Matrix::template store<1>(sums + kLanes, line);
  Matrix::template store<2>(sums + half * kPanel, line);
  Matrix::template store<3>(sums + half * kPanel + kLanes, line);
}

inline void write(const PairProduct& x, int64_t i, int64_t rows, int64_t col, const float* sums) {
  const int64_t valid = x.width - col < kPanel ? x.width - col : kPanel;
  for (int64_t r = 0; r < rows; ++r, sums += kPanel) {
    float* out = x.out + (i + r) * x.stride + col;
    for (int64_t j = 0; j < valid; ++j) {
      float sum = sums[j];
      if (x.factor != nullptr) sum *= x.factor[i + r] * x.col_factor[col + j];
      out[j] = x.accumulate ? out[j] + sum : sum;
    }
  }
}

// Matrix void: vectors alone.
template <typename Vector, typename Matrix>
inline void product(const PairProduct& x) {
  int64_t whole = 0;  // pairs that matrix registers take
  if constexpr (Matrix::kExists) whole = x.depth / kMatrixDepth * kMatrixDepth;
  if (whole > 0) Matrix::configure();
  alignas(64) float sums[kMatrixRows * kPanel];
  for (int64_t col = 0; col < x.width; col += kPanel) {
    const uint32_t* b = x.b + col * x.depth;
    for (int64_t i = 0; i < x.rows; i += kMatrixRows) {
      const int64_t rows = x.rows - i < kMatrixRows ? x.rows - i : kMatrixRows;
      const bool matrix = whole > 0 && rows == kMatrixRows;
      if (matrix) {
        if constexpr (Matrix::kExists) matrices<Matrix>(x, i, b, whole, sums);
      } else {
        for (int64_t l = 0; l < rows * kPanel; ++l) sums[l] = 0;
      }
      if (!matrix || whole < x.depth) vectors<Vector>(x, i, rows, b, matrix ? whole : 0, sums);
      write(x, i, rows, col, sums);
    }
  }
  if (whole > 0) Matrix::release();
}

struct NoMatrix {
  static constexpr bool kExists = false;
  static void configure() {}
  static void release() {}
};

}  // namespace fastcl::FASTCL_PAIRS
