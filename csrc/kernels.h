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

// What forward and backward of info_nce share. Rows are accumulated in T: float, or double for
// double rows.
struct InfoNce {
  Dtype dtype;            // of q and k
  Rows q;                 // [n, d]
  Rows k;                 // [m, d]; q itself where symmetric
  const void* q_lengths;  // [n] of type T, which rows are divided by; null: unit rows, or as is
  const void* k_lengths;  // [m]
  int64_t n, m, d;
  double scale;            // of the logits, logit_scale included
  const int64_t* row_ids;  // [n], or null: no column is a positive
  const int64_t* col_ids;  // [m], or null
  bool symmetric;          // row i leaves column i out
  bool positives_in;       // positives are part of the denominator
  bool unit;               // all rows have length one at most
};

template <typename T>
struct InfoNceForward : InfoNce {
  const T* extra;  // [n] similarity of one more positive, or null
  const T* pivot;  // [n] similarity to count the negatives above, or null
  T* rows;         // [4, n] loss, what rounding took from lse, mean positive, positives
  T* cols;         // [4, m], or null
  int64_t* rank;   // [n], or null
  T* weighted;     // [n, d] sum over the negatives of p_ij k_j, or null
};

template <typename T>
struct InfoNceBackward : InfoNce {
  const T* grad_loss;          // [n], or null: zero
  const T* grad_positive;      // [n], or null
  const T* grad_col_loss;      // [m], or null
  const T* grad_col_positive;  // [m], or null
  const T* rows;               // [4, n] from the forward
  const T* cols;               // [4, m], or null
  bool extra;                  // the forward had one: no column is a positive
  T* dq;                       // [n, d], or null
  T* dk;                       // [m, d], or null
  double* dot;  // out: sum of <unit row of q, its gradient>, where there are q_lengths
};

// The mean of the losses of the rows, or of that and the mean of the columns, and its gradients;
// where rows have lengths, those of the rows before they were divided.
template <typename T>
struct InfoNceMean : InfoNce {
  const T* extra;  // [n] similarity of one more positive, or null
  T* rows;         // [4, n] as InfoNceForward
  T* cols;         // [4, m] where the columns count too, or null
  T* dq;           // [n, d], or null
  T* dk;           // [m, d], or null
  double* loss;
  double* dot;  // out: sum of <unit row of q, its gradient>, where there are q_lengths and dq
};

// The mean over the rows of their contrast with each other, 0 for a row without a positive, and its
// gradient; where rows have lengths, that of the rows before they were divided.
template <typename T>
struct SelfContrastMean : InfoNce {
  T* rows;  // [4, n] as InfoNceForward
  T* dz;    // [n, d], or null
  double* loss;
};

// The sums over all pairs; of InfoNce it has the rows, the columns, the scale, the ids and whether
// the positives are among the pairs.
template <typename T>
struct SigmoidContrast : InfoNce {
  double bias;
  T* dq;         // [n, d], or null
  T* dk;         // [m, d], or null
  double* sums;  // [3] loss, gradient times similarity, gradient
};

namespace cpu {

template <typename T>
void info_nce_forward(const InfoNceForward<T>& x);

// Where rows have lengths, the gradients are those of the rows before they were divided.
template <typename T>
void info_nce_backward(const InfoNceBackward<T>& x);

template <typename T>
void info_nce_mean(const InfoNceMean<T>& x);

template <typename T>
void self_contrast_mean(const SelfContrastMean<T>& x);

template <typename T>
void sigmoid_contrast(const SigmoidContrast<T>& x);

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
