// contrast_sums_: tensors to pointers, on CUDA alone. Schema, fake kernel and fallback are in
// fastcl/_library.py; fastcl/kernels/contrast_hopper.py decides when it is called.
#ifdef FASTCL_CUDA
#include "../contrast_sums.h"

#include <algorithm>

#include "../tensor.h"

namespace fastcl {
namespace {

constexpr int64_t kBlock = 64, kTile = 128, kColumns = 256;  // see cuda/contrast_sums.cu

int64_t blocks(int64_t length, int64_t size) { return (length + size - 1) / size; }

const int64_t* integers(const OptionalTensor& x, int64_t size, const char* name) {
  if (!x.has_value()) return nullptr;
  check_vector(*x, size, ScalarType::Long, name);
  return data<int64_t>(*x, name);
}

// Every buffer the kernel reads or writes is checked: it trusts the sizes it is given.
void contrast_sums_on_cuda(Tensor q, Tensor k, double scale, OptionalTensor logit_scale,
                           OptionalTensor row_ids, OptionalTensor col_ids, OptionalTensor row_range,
                           OptionalTensor col_range, int64_t first, int64_t tiles, int64_t strip,
                           int64_t processors, Tensor row_part, Tensor col_part) {
  check_matrix(q, "q");
  check_matrix(k, "k");
  check_device(k, q, "k");
  check_device(row_part, q, "row_part");
  check_device(col_part, q, "col_part");
  for (const auto* x : {&logit_scale, &row_ids, &col_ids, &row_range, &col_range}) {
    if (x->has_value()) check_device(**x, q, "scale, ids and ranges");
  }
  const int64_t n = q.size(0), m = k.size(0), d = q.size(1);
  check(q.scalar_type() == ScalarType::BFloat16 && k.scalar_type() == ScalarType::BFloat16 &&
            k.size(1) == d && d % 8 == 0,
        "fastcl: q and k must be bfloat16 rows of one width, a multiple of 8");
  check(std::max({n, m, d}) < (int64_t{1} << 31), "fastcl: too many rows");
  check(first >= 0 && tiles > 0 && first + tiles <= blocks(n, kTile) && strip > 0 && processors > 0,
        "fastcl: row tiles must lie within the rows");
  const int64_t strips = blocks(blocks(m, kColumns), strip);
  check_vector(row_part, strips * n, ScalarType::Float, "row_part");
  check(col_part.numel() >= 2 * tiles * m && col_part.scalar_type() == ScalarType::Float,
        "fastcl: col_part must hold a line of float32 per 64 rows");
  check(row_ids.has_value() == col_ids.has_value() &&
            row_ids.has_value() == row_range.has_value() &&
            row_ids.has_value() == col_range.has_value(),
        "fastcl: ids and their ranges must come together");
  if (logit_scale.has_value()) {
    check_vector(*logit_scale, 1, ScalarType::Float, "logit_scale");
  }
  ContrastSums sums;
  sums.q = data<char>(q, "q");
  sums.k = data<char>(k, "k");
  sums.n = static_cast<int32_t>(n);
  sums.m = static_cast<int32_t>(m);
  sums.d = static_cast<int32_t>(d);
  sums.scale = scale;
  sums.logit_scale = data<float>(logit_scale, "logit_scale");
  sums.row_ids = integers(row_ids, n, "row_ids");
  sums.col_ids = integers(col_ids, m, "col_ids");
  sums.row_range = integers(row_range, 2 * blocks(n, kBlock), "row_range");
  sums.col_range = integers(col_range, 2 * blocks(m, kColumns), "col_range");
  sums.first = static_cast<int32_t>(first);
  sums.tiles = static_cast<int32_t>(tiles);
  sums.strip = static_cast<int32_t>(strip);
  sums.row_part = mutable_data<float>(row_part, "row_part");
  sums.col_part = mutable_data<float>(col_part, "col_part");
  sums.processors = static_cast<int32_t>(processors);
  const torch::stable::accelerator::DeviceGuard guard(q.get_device_index());
  const char* error = contrast_sums_cuda(sums, current_stream(q));
  check(error == nullptr, "fastcl: contrast_sums_: ", error);
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CUDA, m) {
  m.impl("contrast_sums_", TORCH_BOX(&fastcl::contrast_sums_on_cuda));
}
#endif
