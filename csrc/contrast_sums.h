// contrast_sums_: exponentials of q k^T summed along rows and columns, on Hopper alone.
#pragma once

#include <cstdint>

namespace fastcl {

struct ContrastSums {
  const void* q;  // [n, d] bfloat16 unit rows, 16-byte aligned; d a multiple of 8
  const void* k;  // [m, d]
  int32_t n, m, d;
  double scale;
  const float* logit_scale;  // [], or null
  const int64_t* row_ids;    // [n], or null: every column is a negative
  const int64_t* col_ids;    // [m]
  const int64_t* row_range;  // [blocks of 64 rows, 2] lowest and highest id, or null
  const int64_t* col_range;  // [blocks of 256 columns, 2]
  int32_t first;             // first tile of 128 rows of this launch
  int32_t tiles;             // tiles of rows of this launch
  int32_t strip;             // tiles of columns per strip
  float* row_part;           // [strips, n] out
  float* col_part;           // [2 tiles, m] out, a line per 64 rows
  int32_t processors;
};

// Null, or what CUDA says is wrong.
const char* contrast_sums_cuda(const ContrastSums& sums, void* stream);

}  // namespace fastcl
