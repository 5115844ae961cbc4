// nce: logistic loss of every row with its positive and its noise, rows of a bank, and its
// gradient.
#pragma once

#include "dtype.h"

namespace fastcl {

// Rows are accumulated in double where x is, else in float: loss, dx and offset have that type.
struct Nce {
  const void* x;         // [b, d]
  const void* bank;      // [n, d]
  const int64_t* index;  // [b, columns] rows of bank, the positive first
  const void* offset;    // [n] added to the logits of a bank row, or null
  Dtype x_dtype;
  Dtype bank_dtype;
  int64_t b, n, d, columns;
  double scale;
  double bias;
  void* loss;  // [b]
  void* dx;    // [b, d], or null
};

// Rows [begin, end); index is trusted.
void nce_cpu(const Nce& x, int64_t begin, int64_t end);

}  // namespace fastcl
