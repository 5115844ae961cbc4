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

inline Rows rows_of(const std::vector<Tensor>& parts, const Tensor& like, const char* name,
                    int64_t* size) {
  Rows rows;
  *size = 0;
  for (const Tensor& x : parts) {
    check(x.dim() == 2 && x.size(1) == like.size(1) && x.scalar_type() == like.scalar_type(),
          "fastcl: ", name, " must hold matrices of the width and dtype of the first rows");
    rows.parts.push_back({data<char>(x, name), x.size(0)});
    *size += x.size(0);
  }
  return rows;
}

inline void check_columns(const Problem& x) {
  check(x.m > 0, "fastcl: the contrast needs columns, got none");
}

// A problem and a tensor like its rows, to make others of.
struct Given {
  Problem problem;
  Tensor like;
};

// An operator that takes a problem, its fields one by one, checked as far as reading it is safe.
template <auto f>
struct OnProblem;

template <typename Result, typename... Rest, Result (*f)(const Given&, Rest...)>
struct OnProblem<f> {
  static Result call(std::vector<Tensor> q, std::vector<Tensor> k, OptionalTensor own,
                     OptionalTensor logit_scale, OptionalTensor row_ids, OptionalTensor col_ids,
                     OptionalTensor row_weight, OptionalTensor col_weight, OptionalTensor limit,
                     OptionalTensor guide_q, OptionalTensor guide_k, double scale, bool both,
                     bool positives_in, bool unit, bool normalize_q, bool normalize_k,
                     bool normalize_own, bool paired, Rest... rest) {
    check(!q.empty(), "fastcl: the contrast needs rows");
    check_matrix(q[0], "q");
    Problem x{};
    x.dtype = rows_dtype(q[0]);
    x.d = q[0].size(1);
    x.q = rows_of(q, q[0], "q", &x.n);
    check(x.n > 0 && x.d > 0, "fastcl: the contrast needs rows, got [", x.n, ", ", x.d, "]");
    x.symmetric = k.empty();
    x.m = x.n;
    x.k = x.symmetric ? x.q : rows_of(k, q[0], "k", &x.m);
    if (own.has_value()) {
      int64_t size = 0;
      x.own = rows_of({*own}, q[0], "own", &size);
      check(size == x.n, "fastcl: own must have as many rows as q");
    }
    if (!col_ids.has_value()) col_ids = row_ids;
    check_ids(row_ids, col_ids, x.n, x.m);
    const std::vector<double> row_weights = values<double>(row_weight, x.n, "row_weight");
    const std::vector<double> col_weights = values<double>(col_weight, x.m, "col_weight");
    const std::vector<double> limits = values<double>(limit, x.n, "limit");
    const auto begin = [](const std::vector<double>& y) { return y.empty() ? nullptr : y.data(); };
    x.row_weight = begin(row_weights);
    x.col_weight = begin(col_weights);
    x.limit = begin(limits);
    check(!limit.has_value() || !(x.symmetric || both),
          "fastcl: a limit takes columns of their own, in one direction");
    check(guide_q.has_value() == guide_k.has_value() && (!guide_q.has_value() || limit.has_value()),
          "fastcl: a guide has rows and columns, and a limit");
    if (guide_q.has_value()) {
      check_matrix(*guide_q, "guide_q");
      x.guide_dtype = rows_dtype(*guide_q);
      x.guide_d = guide_q->size(1);
      int64_t rows = 0, columns = 0;
      x.guide_q = rows_of({*guide_q}, *guide_q, "guide_q", &rows);
      x.guide_k = rows_of({*guide_k}, *guide_q, "guide_k", &columns);
      check(rows == x.n && columns == x.m, "fastcl: a guide must have as many rows as q and k");
      check((x.guide_dtype == Dtype::kFloat64) == (x.dtype == Dtype::kFloat64),
            "fastcl: a guide must accumulate in the dtype of the rows");
    }
    x.scale = whole_scale(scale, logit_scale);
    x.row_ids = data<int64_t>(row_ids, "row_ids");
    x.col_ids = data<int64_t>(col_ids, "col_ids");
    check(!both || !(x.symmetric || own.has_value()),
          "fastcl: both directions need columns, and no positive of each row's own");
    x.both = both;
    x.positives_in = positives_in;
    x.unit = unit;
    x.normalize_q = normalize_q;
    x.normalize_k = x.symmetric ? normalize_q : normalize_k;
    x.normalize_own = normalize_own;
    x.paired = paired;
    return f({x, q[0]}, rest...);
  }
};

}  // namespace fastcl
