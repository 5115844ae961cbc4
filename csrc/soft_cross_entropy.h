// soft_cross_entropy: every row of scores against a row of targets, and its gradient.
#pragma once

#include "dtype.h"

namespace fastcl {

// Accumulated in double where scores are, else in float.
struct SoftCrossEntropy {
  const void* scores;  // [n, m]
  const void* target;  // [n, m]
  Dtype dtype;         // of scores and grad
  Dtype target_dtype;  // that of scores, or what is accumulated in
  int64_t m;
  double scale;
  double factor;
  double* losses;  // [n]
  void* grad;      // [n, m] factor times the gradient to the scaled scores, or null
};

// Rows [begin, end).
void soft_cross_entropy_cpu(const SoftCrossEntropy& x, int64_t begin, int64_t end);

}  // namespace fastcl
