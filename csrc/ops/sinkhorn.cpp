// sinkhorn and its passes: tensors to pointers. Schemas, fake kernels and fallbacks are in
// fastcl/_library.py.
#include "../sinkhorn.h"

#include "../tensor.h"

namespace fastcl {
namespace {

Sinkhorn problem_of(const Tensor& scores, double scale) {
  check(scores.dim() == 2 && scores.size(0) > 0 && scores.size(1) > 0,
        "fastcl: scores must be a matrix that is not empty");
  check(dtype(scores) != Dtype::kOther, "fastcl: scores must be floating point");
  Sinkhorn x{};
  x.scores = checked(scores, "scores").data_ptr();
  x.dtype = dtype(scores);
  x.n = scores.size(0);
  x.m = scores.size(1);
  x.scale = scale;
  return x;
}

Tensor columns(Tensor scores, double scale) {
  Sinkhorn x = problem_of(scores, scale);
  Tensor sums = empty(scores, {x.m}, accumulator(scores));
  x.sums = sums.data_ptr();
  sinkhorn_cpu(x);
  return sums;
}

Tensor with_potential(const Tensor& scores, double scale, const Tensor& potential, bool summed) {
  Sinkhorn x = problem_of(scores, scale);
  check_vector(potential, x.m, accumulator(scores), "potential");
  x.potential = checked(potential, "potential").data_ptr();
  Tensor out = summed ? empty(scores, {x.m}, accumulator(scores))
                      : empty(scores, {x.n, x.m}, accumulator(scores));
  (summed ? x.sums : x.out) = out.data_ptr();
  sinkhorn_cpu(x);
  return out;
}

Tensor masses(Tensor scores, double scale, Tensor potential) {
  return with_potential(scores, scale, potential, true);
}

Tensor assign(Tensor scores, double scale, Tensor potential) {
  return with_potential(scores, scale, potential, false);
}

Tensor sinkhorn(Tensor scores, OptionalTensor older, double scale, int64_t iterations) {
  check(iterations > 0, "fastcl: iterations must be 1 or more, got ", iterations);
  Sinkhorn x = problem_of(scores, scale);
  if (older.has_value()) {
    check(older->dim() == 2 && older->size(1) == x.m && dtype(*older) == x.dtype,
          "fastcl: older must have the width and dtype of scores");
    x.older = checked(*older, "older").data_ptr();
    x.r = older->size(0);
  }
  Tensor out = empty(scores, {x.n, x.m}, accumulator(scores));
  x.out = out.data_ptr();
  sinkhorn_cpu(x, iterations);
  return out;
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("sinkhorn", TORCH_BOX(&fastcl::sinkhorn));
  m.impl("sinkhorn_columns", TORCH_BOX(&fastcl::columns));
  m.impl("sinkhorn_masses", TORCH_BOX(&fastcl::masses));
  m.impl("sinkhorn_assign", TORCH_BOX(&fastcl::assign));
}
