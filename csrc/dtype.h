// The element types that kernels convert between, named without torch.
#pragma once

#include <cstdint>

namespace fastcl {

enum class Dtype : uint8_t { kFloat16, kBFloat16, kFloat32, kFloat64, kOther };

inline int64_t size_of(Dtype dtype) {
  if (dtype == Dtype::kFloat64) return 8;
  return dtype == Dtype::kFloat32 ? 4 : 2;
}

}  // namespace fastcl
