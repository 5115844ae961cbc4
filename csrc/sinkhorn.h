// Sinkhorn-Knopp over scores, with s_ij = scale * scores_ij: one of its three passes, or all of it.
#pragma once

#include "dtype.h"

namespace fastcl {

// Accumulated in double where scores are, else in float: potential, sums and out have that type.
struct Sinkhorn {
  const void* scores;     // [n, m]
  const void* older;      // [r, m] rows that take part and are not assigned, or null
  const void* potential;  // [m], or null: the first pass
  Dtype dtype;
  int64_t n, r, m;
  double scale;
  void* sums;  // [m] logarithm of the column sums of exp(s); or column sums of the assignment
  void* out;   // [n, m] the assignment; in a pass, one of sums and out is null
};

// One pass.
void sinkhorn_cpu(const Sinkhorn& x);

// All passes, to out; potential and sums are not looked at.
void sinkhorn_cpu(const Sinkhorn& x, int64_t iterations);

}  // namespace fastcl
