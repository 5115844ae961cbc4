// The operators on raw pointers, one overload per device. Nothing here knows torch.
#pragma once

#include <cstdint>
#include <vector>

#include "dtype.h"

namespace fastcl {

// A matrix in one or more parts below each other, contiguous each.
struct Rows {
  struct Part {
    const void* data;
    int64_t size;  // rows
  };
  std::vector<Part> parts;
};

// The one problem under every contrast, the twin of fastcl/contrast/problem.py. Rows are
// accumulated in T: float, or double for double rows.
struct Problem {
  Dtype dtype;  // of q, k and own
  Rows q;       // [n, d]
  Rows k;       // [m, d]; q itself where symmetric
  Rows own;     // [n, d] one more positive per row, or no part
  int64_t n, m, d;
  const double* row_weight;  // [n] of the losses in the mean, or null
  const double* col_weight;  // [m], or null
  const double* limit;       // [n] similarity above which a column is no negative, or null
  Dtype guide_dtype;
  Rows guide_q;  // [n, guide_d] whose cosines are held to the limit; no part: q and k themselves
  Rows guide_k;  // [m, guide_d]
  int64_t guide_d;
  double scale;            // of the logits, logit_scale included
  const int64_t* row_ids;  // [n], or null: no column is a positive
  const int64_t* col_ids;  // [m], or null
  bool symmetric;          // row i leaves column i out
  bool both;               // every column is contrasted with the rows too
  bool positives_in;       // positives are part of the denominator
  bool unit;               // all rows have length one at most, as they are or divided
  bool normalize_q;        // divide the rows by their length on their way into the products
  bool normalize_k;
  bool normalize_own;
  bool paired;  // every row has a positive; else one without counts as zero in the mean

  bool has_guide() const { return !guide_q.parts.empty(); }
  bool has_own() const { return !own.parts.empty(); }
  // No positive is among the columns.
  bool aside() const { return row_ids == nullptr || has_own(); }
  // The forward leaves no more of the gradient than a multiplication: constant columns, none of
  // them a positive.
  bool finishes(bool need_q, bool need_k) const {
    return need_q && aside() && !(need_k || symmetric || both);
  }
};

template <typename T>
struct ContrastForward {
  Problem problem;
  const T* pivot;  // [n] similarity to count the negatives above, or null
  T* rows;         // [4, n] loss, what rounding took from lse, mean positive, positives
  T* cols;         // [4, m] where both, or null
  int64_t* rank;   // [n], or null
  T* weighted;     // [n, d] sum over the negatives of p_ij k_j, or null
};

// Gradients are those of the rows before they were divided, and null where not needed.
template <typename T>
struct Gradients {
  T* dq;          // [n, d]
  T* dk;          // [m, d]
  T* d_own;       // [n, d]
  double* slope;  // out: the derivative to the logarithm of the scale, which takes dq
};

template <typename T>
struct ContrastBackward {
  Problem problem;
  const T* rows;               // [4, n] from the forward
  const T* cols;               // [4, m], or null
  const T* weighted;           // [n, d] from the forward, or null; k is not read then
  const T* grad_loss;          // [n], or null: zero
  const T* grad_positive;      // [n], or null
  const T* grad_col_loss;      // [m], or null
  const T* grad_col_positive;  // [m], or null
  Gradients<T> to;
};

// The mean of the losses of the rows, where both of that and the mean of the columns, and its
// gradients.
template <typename T>
struct ContrastMean {
  Problem problem;
  T* losses;  // [n]
  double* loss;
  Gradients<T> to;
};

// The logistic loss of all pairs.
template <typename T>
struct SigmoidContrast {
  Problem problem;  // with columns; own, both and paired are not used
  double bias;
  T* dq;         // [n, d], or null
  T* dk;         // [m, d], or null
  double* sums;  // [3] loss, gradient times similarity, gradient
};

// out [n, d] = a b.
template <typename T>
struct Product {
  const T* a;  // [n, c], or [c, n] where turned
  const T* b;  // [c, d], or [d, c] where turned
  T* out;
  int64_t n, c, d;
  bool a_turned, b_turned;
};

// The contrast of rows q and k with the diagonal's positives, cut to each of several widths.
template <typename T>
struct NestedContrast {
  Dtype dtype;
  const void* q;  // [n, d]
  const void* k;  // [n, d]
  int64_t n, d;
  std::vector<int64_t> widths;  // rising
  std::vector<double> weights;
  double scale;
  double* loss;
  T* dq;          // [n, d], or null
  T* dk;          // [n, d], or null
  double* slope;  // the derivative to the logarithm of the scale, or null

  bool has_gradient() const { return dq != nullptr || dk != nullptr || slope != nullptr; }
};

// Tokens of several items, [items, length, d].
struct Tokens {
  const void* data;
  const bool* mask;  // [items, length] where there are tokens, or null: everywhere
  int64_t items, length;
};

// The contrast of queries against documents that score the sum over a query's tokens of the best
// token; gradients are those of the tokens before they were divided, and null where not needed.
template <typename T>
struct MaxSim {
  Dtype dtype;
  Tokens query;     // n items
  Tokens document;  // n or more
  Tokens hard;      // a multiple of n, query by query, or none
  int64_t d;
  double scale;
  bool normalize;
  double* loss;
  T* dq;
  T* dd;
  T* d_hard;
  double* slope;  // the derivative to the logarithm of the scale, or null
};

namespace cpu {

template <typename T>
void contrast_forward(const ContrastForward<T>& x);

template <typename T>
void contrast_backward(const ContrastBackward<T>& x);

template <typename T>
void contrast_mean(const ContrastMean<T>& x);

template <typename T>
void sigmoid_contrast(const SigmoidContrast<T>& x);

template <typename T>
void product(const Product<T>& x);

template <typename T>
void nested_contrast_mean(const NestedContrast<T>& x);

template <typename T>
void max_sim_mean(const MaxSim<T>& x);

// y = x / |x| row by row, in the dtype of x; lengths [n] are kept for the gradient.
template <typename T>
void unit_rows(Dtype dtype, const void* x, int64_t n, int64_t d, void* y, T* lengths);

// Lengths [n] of the rows.
template <typename T>
void row_lengths(Dtype dtype, const Rows& x, int64_t d, T* lengths);

// The gradient of unit rows, in place, to that of the rows x; returns the sum of <x / |x|, grad>.
template <typename T>
double project(Dtype dtype, const Rows& x, const T* lengths, int64_t d, T* grad);

template <typename T>
void unit_rows_gradient(Dtype dtype, const void* grad, const void* x, const T* lengths, int64_t n,
                        int64_t d, void* dx);

}  // namespace cpu
}  // namespace fastcl
