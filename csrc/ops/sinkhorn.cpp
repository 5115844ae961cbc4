// The passes of sinkhorn: tensors to pointers. Schemas, fake kernels and fallbacks are in
// fastcl/_library.py.
#include "../sinkhorn.h"

#include "../tensor.h"

namespace fastcl {
namespace {

Sinkhorn problem_of(const Tensor& scores, double scale) {
  STD_TORCH_CHECK(scores.dim() == 2 && scores.size(0) > 0 && scores.size(1) > 0,
                  "fastcl: scores must be a matrix that is not empty");
  STD_TORCH_CHECK(dtype(scores) != Dtype::kOther, "fastcl: scores must be floating point");
  return {checked(scores, "scores").data_ptr(),
          nullptr,
          dtype(scores),
          scores.size(0),
          scores.size(1),
          scale,
          nullptr,
          nullptr};
}

Tensor columns(Tensor scores, double scale) {
  Sinkhorn x = problem_of(scores, scale);
  Tensor sums = torch::stable::new_empty(scores, {x.m}, accumulator(scores));
  x.sums = sums.data_ptr();
  sinkhorn_cpu(x);
  return sums;
}

Tensor with_potential(const Tensor& scores, double scale, const Tensor& potential, bool summed) {
  Sinkhorn x = problem_of(scores, scale);
  check_vector(potential, x.m, accumulator(scores), "potential");
  x.potential = checked(potential, "potential").data_ptr();
  Tensor out = summed ? torch::stable::new_empty(scores, {x.m}, accumulator(scores))
                      : torch::stable::new_empty(scores, {x.n, x.m}, accumulator(scores));
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

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("sinkhorn_columns", TORCH_BOX(&fastcl::columns));
  m.impl("sinkhorn_masses", TORCH_BOX(&fastcl::masses));
  m.impl("sinkhorn_assign", TORCH_BOX(&fastcl::assign));
}
