// draw_views: what the operator accepts.
#include "draw_views.h"

#include "tensor.h"

namespace fastcl {
namespace {

// float32, so many numbers end to end, on the device of the first.
const float* numbers(const Tensor& x, std::initializer_list<int64_t> shape, const Tensor& like,
                     const char* name) {
  check(x.scalar_type() == ScalarType::Float, "fastcl: ", name, " must be float32");
  check_device(x, like, name);
  check(x.dim() == static_cast<int64_t>(shape.size()), "fastcl: ", name, " must have ",
        shape.size(), " dimensions, got ", x.dim());
  int64_t dim = 0;
  for (const int64_t size : shape) {
    check(x.size(dim) == size, "fastcl: ", name, " must have ", size, " in dimension ", dim,
          ", got ", x.size(dim));
    ++dim;
  }
  return data<float>(x, name);
}

const float* numbers(const OptionalTensor& x, std::initializer_list<int64_t> shape,
                     const Tensor& like, const char* name) {
  return x.has_value() ? numbers(*x, shape, like, name) : nullptr;
}

Tensor draw_views(Tensor chances, Tensor sizes, OptionalTensor middle, Tensor low, Tensor span,
                  Tensor ratio, Tensor threshold, OptionalTensor shares) {
  constexpr int64_t kDraws = DrawViews::kDraws;
  check(chances.dim() == 3, "fastcl: chances must have 3 dimensions, got ", chances.dim());
  DrawViews x{};
  x.b = chances.size(1);
  x.views = chances.size(2);
  x.chances = numbers(chances, {kDraws, x.b, x.views}, chances, "chances");
  check_matrix(sizes, "sizes");
  const int64_t rows = sizes.size(0);
  check((rows == 1 || rows == x.b) && sizes.size(1) == 2, "fastcl: sizes must be [1, 2] or [", x.b,
        ", 2], got [", rows, ", ", sizes.size(1), "]");
  check_device(sizes, chances, "sizes");
  check_vector(sizes, 2 * rows, ScalarType::Long, "sizes");
  x.sizes = data<int64_t>(sizes, "sizes");
  x.alike = rows == 1;
  x.middle = numbers(middle, {2, rows, x.views}, chances, "middle");
  x.low = numbers(low, {kDraws, 1, x.views}, chances, "low");
  x.span = numbers(span, {kDraws, 1, x.views}, chances, "span");
  x.ratio = numbers(ratio, {2, 1, x.views}, chances, "ratio");
  x.threshold = numbers(threshold, {1, x.views}, chances, "threshold");
  x.shares = numbers(shares, {1, x.views}, chances, "shares");
  Tensor out = empty(chances, {x.b, x.views, static_cast<int64_t>(sizeof(View) / sizeof(float))});
  x.out = reinterpret_cast<View*>(mutable_data<float>(out, "out"));
  cpu::draw_views(x);
  return out;
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { m.impl("draw_views", TORCH_BOX(&fastcl::draw_views)); }
