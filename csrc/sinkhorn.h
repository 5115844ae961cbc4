// The three passes of Sinkhorn-Knopp over scores, with s_ij = scale * scores_ij.
#pragma once

#include "dtype.h"

namespace fastcl {

// Accumulated in double where scores are, else in float: potential, sums and out have that type.
struct Sinkhorn {
  const void* scores;     // [n, m]
  const void* potential;  // [m], or null: the first pass
  Dtype dtype;
  int64_t n, m;
  double scale;
  void* sums;  // [m] logarithm of the column sums of exp(s); or column sums of the assignment
  void* out;   // [n, m] the assignment; one of sums and out is null
};

void sinkhorn_cpu(const Sinkhorn& x);

}  // namespace fastcl
