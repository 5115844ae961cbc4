// bank_update_: rows = momentum * rows + (1 - momentum) * x, back to unit length.
#pragma once

#include "dtype.h"

namespace fastcl {

struct BankUpdate {
  void* bank;            // [n, d]
  const void* x;         // [b, d]
  const int64_t* index;  // [b] rows of bank
  Dtype bank_dtype;
  Dtype x_dtype;
  int64_t n, b, d;
  double momentum;
};

// Items [begin, end) of chosen, rows of x whose rows of the bank are all different.
void bank_update_cpu(const BankUpdate& update, const int64_t* chosen, int64_t begin, int64_t end);

}  // namespace fastcl
