// The element types that kernels convert between, named without torch.
#pragma once

#include <cstdint>

namespace fastcl {

enum class Dtype : uint8_t { kFloat16, kBFloat16, kFloat32, kFloat64, kOther };

}  // namespace fastcl
