// unit_rows: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include <tuple>
#include <vector>

#include "kernels.h"
#include "tensor.h"

namespace fastcl {
namespace {

void check_rows(const std::vector<Tensor>& parts) {
  check(!parts.empty(), "fastcl: unit_rows needs rows");
  check_matrix(parts[0], "rows");
  for (const Tensor& x : parts) {
    check(
        x.dim() == 2 && x.size(1) == parts[0].size(1) && x.scalar_type() == parts[0].scalar_type(),
        "fastcl: rows must be matrices of one width and dtype");
  }
}

int64_t row_bytes(const Tensor& x) { return x.element_size() * x.size(1); }

std::tuple<Tensor, Tensor> unit_rows_forward(std::vector<Tensor> parts) {
  check_rows(parts);
  int64_t n = 0;
  for (const Tensor& x : parts) n += x.size(0);
  const Tensor& first = parts[0];
  const int64_t d = first.size(1);
  Tensor y = empty(first, {n, d});
  Tensor lengths = empty(first, {n}, accumulator(first));
  with_accumulator(first, [&](auto zero) {
    using T = decltype(zero);
    char* to = mutable_data<char>(y, "y");
    T* length = mutable_data<T>(lengths, "lengths");
    for (const Tensor& x : parts) {
      cpu::unit_rows<T>(rows_dtype(x), data<char>(x, "x"), x.size(0), d, to, length);
      to += x.size(0) * row_bytes(x);
      length += x.size(0);
    }
  });
  return {y, lengths};
}

Tensor unit_rows_backward(Tensor grad, std::vector<Tensor> parts, Tensor lengths) {
  check_rows(parts);
  check_matrix(grad, "grad");
  const int64_t n = grad.size(0), d = grad.size(1);
  check(d == parts[0].size(1) && grad.scalar_type() == parts[0].scalar_type(),
        "fastcl: grad must have the width and dtype of the rows");
  check_vector(lengths, n, accumulator(grad), "lengths");
  Tensor dx = torch::stable::empty_like(grad);
  with_accumulator(grad, [&](auto zero) {
    using T = decltype(zero);
    char* to = mutable_data<char>(dx, "dx");
    const char* from = data<char>(grad, "grad");
    const T* length = data<T>(lengths, "lengths");
    for (const Tensor& x : parts) {
      const int64_t bytes = x.size(0) * row_bytes(x);
      check(to + bytes <= mutable_data<char>(dx, "dx") + n * row_bytes(dx),
            "fastcl: grad must have as many rows as the parts");
      cpu::unit_rows_gradient<T>(rows_dtype(x), from, data<char>(x, "x"), length, x.size(0), d, to);
      to += bytes;
      from += bytes;
      length += x.size(0);
    }
  });
  return dx;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("unit_rows_forward", TORCH_BOX(&unit_rows_forward));
  m.impl("unit_rows_backward", TORCH_BOX(&unit_rows_backward));
}

}  // namespace fastcl
