// The passes of the instruction set that runs.
#include "cpu/simd.h"

#include "cpu/instruction_set.h"

namespace fastcl {

FASTCL_IN_EVERY_SET(extern const cpu::Simd<float> float_passes)
FASTCL_IN_EVERY_SET(extern const cpu::Simd<double> double_passes)

namespace cpu {

template <>
const Simd<float>& simd<float>() {
  return FASTCL_CHOSEN(float_passes);
}

template <>
const Simd<double>& simd<double>() {
  return FASTCL_CHOSEN(double_passes);
}

}  // namespace cpu
}  // namespace fastcl
