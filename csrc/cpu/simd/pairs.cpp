// Rows and gradients as the operands of pair products, see cpu/pairs.h: moves of bits, and one
// rounding of the gradient to bfloat16.
#include "cpu/pairs.h"

#include "cpu/float16.h"
#include "cpu/simd/passes.h"
#include "cpu/simd/transpose.h"

namespace fastcl::FASTCL_SIMD {
namespace {

using cpu::kPanel;
using cpu::kSide;
using cpu::kSquare;
using cpu::whole_squares;

// Lanes x lanes pairs from rows `from` apart to columns `to` apart.
template <typename F>
inline void turn(const F& row, uint32_t* to, int64_t line) {
  constexpr int lanes = kWidth<float>;
  Vector<float> block[lanes];
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) block[l] = load<Vector<float>>(row(l));
  transpose<float>(block);
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) store(to + l * line, block[l]);
}

// [size, pairs] rows to [pairs, line] columns; row(i) begins with its first pair.
template <typename F>
inline void columns(const F& row, int64_t size, int64_t pairs, uint32_t* to, int64_t line) {
  constexpr int lanes = kWidth<float>;
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    int64_t k = 0;
    for (; k + lanes <= pairs; k += lanes) {
      turn([&](int l) { return row(i + l) + k; }, to + k * line + i, line);
    }
    for (; k < pairs; ++k) {
      for (int l = 0; l < lanes; ++l) to[k * line + i + l] = load<uint32_t>(row(i + l) + k);
    }
  }
  for (; i < size; ++i) {
    for (int64_t k = 0; k < pairs; ++k) to[k * line + i] = load<uint32_t>(row(i) + k);
  }
}

inline uint32_t pair_of(float low, float high) {
  return static_cast<uint32_t>(narrow<BFloat16>(low)) |
         static_cast<uint32_t>(narrow<BFloat16>(high)) << 16;
}

}  // namespace

void pack_pair_columns(const void* const* rows, int64_t size, int64_t from, int64_t pairs,
                       uint32_t* to) {
  const int64_t depth = whole_squares(pairs);
  for (int64_t first = 0; first < size; first += kPanel, to += depth * kPanel) {
    const int64_t width = size - first < kPanel ? size - first : kPanel;
    const int64_t whole = width < kPanel ? 0 : pairs;  // lines that will have been written
    __builtin_memset(to + whole * kPanel, 0, (depth - whole) * kPanel * sizeof(*to));
    const auto row = [&](int64_t i) {
      return static_cast<const uint32_t*>(rows[first + i]) + from;
    };
    columns(row, width, pairs, to, kPanel);
  }
}

void pack_pair_rows(const void* const* rows, int64_t size, int64_t from, int64_t cols,
                    uint32_t* to) {
  const auto row = [&](int64_t i) { return static_cast<const uint16_t*>(rows[i]) + from; };
  const int64_t pairs = (size + 1) / 2, added = (whole_squares(pairs) - pairs) * kPanel;
  for (int64_t first = 0; first < cols; first += kPanel) {
    const int64_t width = cols - first < kPanel ? cols - first : kPanel;
    for (int64_t i = 0; i < size; i += 2, to += kPanel) {
      const uint16_t* low = row(i) + first;
      if (i + 1 < size) {
        const uint16_t* high = row(i + 1) + first;
        for (int64_t j = 0; j < width; ++j) to[j] = low[j] | static_cast<uint32_t>(high[j]) << 16;
      } else {
        for (int64_t j = 0; j < width; ++j) to[j] = low[j];
      }
      for (int64_t j = width; j < kPanel; ++j) to[j] = 0;
    }
    __builtin_memset(to, 0, added * sizeof(*to));
    to += added;
  }
}

void narrow_rows(Tile<float> tile, const float* factor, uint32_t* to) {
  const int64_t pairs = (tile.cols + 1) / 2, depth = whole_squares(pairs);
  for (int64_t i = 0; i < tile.rows; ++i) {
    const float* s = tile.s + i * tile.stride;
    uint32_t* line = to + i / kSide * kSide * depth + i % kSide * kSide;
    const auto at = [&](int64_t j) { return factor == nullptr ? s[j] : s[j] * factor[j]; };
    int64_t j = 0;
    for (; j + 2 * kSide <= tile.cols; j += 2 * kSide, line += kSquare) {
      for (int64_t l = 0; l < kSide; ++l) line[l] = pair_of(at(j + 2 * l), at(j + 2 * l + 1));
    }
    if (j == tile.cols) continue;
    for (int64_t l = 0; l < kSide; ++l, j += 2) {
      line[l] = j >= tile.cols ? 0 : pair_of(at(j), j + 1 < tile.cols ? at(j + 1) : 0);
    }
  }
}

void narrow_columns(Tile<float> tile, const float* factor, uint32_t* mixed, uint32_t* to) {
  const int64_t pairs = (tile.rows + 1) / 2, depth = whole_squares(pairs), cols = tile.cols;
  for (int64_t k = 0; k < pairs; ++k) {
    const int64_t i = 2 * k;
    const bool two = i + 1 < tile.rows;
    const float* low = tile.s + i * tile.stride;
    const float* high = two ? low + tile.stride : low;
    const float a = factor == nullptr ? 1 : factor[i];
    const float b = !two ? 0 : factor == nullptr ? 1 : factor[i + 1];
    uint32_t* out = mixed + k * cols;
    if (two) {
      for (int64_t j = 0; j < cols; ++j) out[j] = pair_of(low[j] * a, high[j] * b);
    } else {
      for (int64_t j = 0; j < cols; ++j) out[j] = pair_of(low[j] * a, 0);
    }
  }
  __builtin_memset(mixed + pairs * cols, 0, (depth - pairs) * cols * sizeof(*mixed));
  for (int64_t j = 0; j < cols; j += kSide) {
    const int64_t count = cols - j < kSide ? cols - j : kSide;
    for (int64_t k = 0; k < depth; k += kSide, to += kSquare) {
      columns([&](int64_t l) { return mixed + (k + l) * cols + j; }, kSide, count, to, kSide);
    }
  }
}

}  // namespace fastcl::FASTCL_SIMD
