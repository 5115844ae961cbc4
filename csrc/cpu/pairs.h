// Products of bfloat16 rows on processors that have them: two neighbours of a row, a pair, are
// multiplied and added to a float sum by one instruction.
#pragma once

#include <cstdint>

namespace fastcl::cpu {

// Columns of a panel of b.
constexpr int64_t kPanel = 32;
// Rows and pairs of a matrix register. a lies in such squares, each end to end: what a register
// takes is one piece of memory.
constexpr int64_t kSide = 16;
constexpr int64_t kSquare = kSide * kSide;

// Depth in whole squares; what is added to a and b there is zero.
[[gnu::always_inline]] constexpr int64_t whole_squares(int64_t pairs) {
  return (pairs + kSide - 1) / kSide * kSide;
}

// out [rows, width] (+)= a b, element i, j times factor[i] * col_factor[j] where not null.
struct PairProduct {
  const uint32_t* a;  // [ceil(rows / kSide), whole_squares(pairs) / kSide, kSide, kSide] pairs
  int64_t rows;
  const uint32_t* b;  // [panels, whole_squares(pairs), kPanel] pairs
  int64_t pairs;      // depth
  int64_t width;
  const float* factor;      // [rows], or null
  const float* col_factor;  // [width] and kPanel more that are not used
  float* out;
  int64_t stride;
  bool accumulate;
};
// Pairs from .. from + pairs of the rows, in the squares of a.
void pack_squares(const void* const* rows, int64_t size, int64_t from, int64_t pairs, uint32_t* to);

using PairKernel = void (*)(const PairProduct&);

// kWidened multiplies no pairs: rows become floats. The emulated ones are the same two forms in
// plain C++, for the tests: much slower than float products.
enum class PairProducts { kWidened, kEmulatedVectors, kEmulatedMatrices, kAvx512Bf16, kAmx };

bool has(PairProducts products);
PairProducts pair_products();
PairProducts best_pair_products();  // of this processor
// For the tests.
void use_pair_products(PairProducts products);

// The kernel of the products that run, or null.
PairKernel pair_kernel();

}  // namespace fastcl::cpu
