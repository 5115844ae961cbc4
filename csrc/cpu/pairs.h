// Products of bfloat16 rows on processors that have them: two neighbours of a row, a pair, are
// multiplied and added to a float sum by one instruction.
#pragma once

#include <cstdint>

namespace fastcl::cpu {

// Columns of a panel of b.
constexpr int64_t kPanel = 32;

// out [rows, width] (+)= a b, element i, j times factor[i] * col_factor[j] where not null.
struct PairProduct {
  const uint32_t* a;  // [rows, depth] pairs
  int64_t row;        // pairs from row to row
  int64_t rows;
  const uint32_t* b;  // [panels, depth, kPanel] pairs
  int64_t depth;      // in pairs
  int64_t width;
  const float* factor;      // [rows], or null
  const float* col_factor;  // [width] and kPanel more that are not used
  float* out;
  int64_t stride;
  bool accumulate;
};
using PairKernel = void (*)(const PairProduct&);

// The kernel of this processor, or null where it has no bfloat16 products.
PairKernel pair_kernel();

// What the tests run where it has none: 1 the vector form in plain C++, 2 the matrix form, 0 undoes
// both. Much slower than float products.
void emulate_pair_products(int form);

}  // namespace fastcl::cpu
