// product: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include <algorithm>

#include "kernels.h"
#include "tensor.h"

namespace fastcl {
namespace {

Tensor product(Tensor a, Tensor b, bool a_turned, bool b_turned) {
  check_matrix(a, "a");
  check_matrix(b, "b");
  check(a.scalar_type() == b.scalar_type() && a.scalar_type() == accumulator(a),
        "fastcl: a and b must be both float32 or both float64");
  const int64_t n = a.size(a_turned ? 1 : 0), c = a.size(a_turned ? 0 : 1);
  const int64_t d = b.size(b_turned ? 0 : 1);
  check(b.size(b_turned ? 1 : 0) == c, "fastcl: a and b must have one depth");
  Tensor out = empty(a, {n, d});
  with_accumulator(a, [&](auto zero) {
    using T = decltype(zero);
    T* to = mutable_data<T>(out, "out");
    if (c == 0) std::fill(to, to + n * d, T(0));
    cpu::product(Product<T>{data<T>(a, "a"), data<T>(b, "b"), to, n, c, d, a_turned, b_turned});
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { m.impl("product", TORCH_BOX(&product)); }

}  // namespace fastcl
