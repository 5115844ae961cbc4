// Rows, columns, scale and ids of the contrasts: tensors to pointers.
#pragma once

#include "kernels.h"
#include "tensor.h"

namespace fastcl {

inline void check_ids(const OptionalTensor& row_ids, const OptionalTensor& col_ids, int64_t n,
                      int64_t m) {
  check(row_ids.has_value() == col_ids.has_value(),
        "fastcl: ids of the rows need ids of the columns");
  if (row_ids.has_value()) {
    check_vector(*row_ids, n, ScalarType::Long, "row_ids");
    check_vector(*col_ids, m, ScalarType::Long, "col_ids");
  }
}

inline double whole_scale(double scale, const OptionalTensor& logit_scale) {
  if (logit_scale.has_value()) scale *= values<double>(*logit_scale, 1, "logit_scale")[0];
  check(!(scale <= 0), "fastcl: the scale must be above 0, got ", scale);
  return scale;
}

// What every contrast takes, checked as far as reading it is safe.
inline InfoNce problem(const Tensor& q, const Tensor& k, double scale,
                       const OptionalTensor& logit_scale, const OptionalTensor& row_ids,
                       const OptionalTensor& col_ids, bool symmetric, bool positives_in,
                       bool unit) {
  check(
      q.dim() == 2 && k.dim() == 2 && q.size(1) == k.size(1) && q.scalar_type() == k.scalar_type(),
      "fastcl: q and k must be matrices of one width and dtype");
  check(!symmetric || q.size(0) == k.size(0), "fastcl: k must be q where symmetric");
  check_ids(row_ids, col_ids, q.size(0), k.size(0));
  return {rows_dtype(q),
          {{{checked(q, "q").data_ptr(), q.size(0)}}},
          {{{checked(k, "k").data_ptr(), k.size(0)}}},
          nullptr,
          nullptr,
          q.size(0),
          k.size(0),
          q.size(1),
          whole_scale(scale, logit_scale),
          data<int64_t>(row_ids, "row_ids"),
          data<int64_t>(col_ids, "col_ids"),
          symmetric,
          positives_in,
          unit};
}

inline Rows rows_of(const std::vector<Tensor>& parts, const Tensor& like, int64_t* size) {
  Rows rows;
  *size = 0;
  for (const Tensor& x : parts) {
    check(x.dim() == 2 && x.size(1) == like.size(1) && x.scalar_type() == like.scalar_type(),
          "fastcl: rows must be matrices of one width and dtype");
    rows.parts.push_back({data<char>(x, "rows"), x.size(0)});
    *size += x.size(0);
  }
  return rows;
}

// The same of rows as they come, in parts, to be divided by their length: the caller gives lengths.
inline InfoNce raw_problem(const std::vector<Tensor>& q, const std::vector<Tensor>& k, double scale,
                           const OptionalTensor& logit_scale, const OptionalTensor& row_ids,
                           const OptionalTensor& col_ids, bool positives_in) {
  check(!q.empty(), "fastcl: the contrast needs rows");
  InfoNce x{};
  check_matrix(q[0], "rows");
  x.dtype = rows_dtype(q[0]);
  x.d = q[0].size(1);
  x.q = rows_of(q, q[0], &x.n);
  x.symmetric = k.empty();
  x.m = x.n;
  x.k = x.symmetric ? x.q : rows_of(k, q[0], &x.m);
  check_ids(row_ids, col_ids, x.n, x.m);
  x.scale = whole_scale(scale, logit_scale);
  x.row_ids = data<int64_t>(row_ids, "row_ids");
  x.col_ids = data<int64_t>(col_ids, "col_ids");
  x.positives_in = positives_in;
  x.unit = true;
  return x;
}

}  // namespace fastcl
