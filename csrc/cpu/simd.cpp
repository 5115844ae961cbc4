// The passes of the widest instruction set that the processor has.
#include "cpu/simd.h"

#include "cpu/instruction_set.h"

namespace fastcl {

FASTCL_IN_EVERY_SET(extern const cpu::Simd<float> float_passes)
FASTCL_IN_EVERY_SET(extern const cpu::Simd<double> double_passes)

namespace cpu {

template <>
const Simd<float>& simd<float>() {
  static const Simd<float>& passes = FASTCL_BEST_OF(float_passes);
  return passes;
}

template <>
const Simd<double>& simd<double>() {
  static const Simd<double>& passes = FASTCL_BEST_OF(double_passes);
  return passes;
}

}  // namespace cpu
}  // namespace fastcl
