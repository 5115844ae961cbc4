// The passes of one instruction set, and half precision to T in plain integer operations that
// every instruction set has.
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {
namespace {

inline float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

inline float from_half(uint16_t x) {
  const uint32_t magnitude = (x & 0x7fffu) << 13, sign = (x & 0x8000u) << 16;
  // The exponent is rebased by a multiplication, which is also right for subnormal numbers.
  const float value = from_bits(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;  // infinite or NaN
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return from_bits(bits | special | sign);
}

}  // namespace

template <typename T>
void widen(Element from, const uint16_t* x, int64_t rows, int64_t cols, int64_t stride, T* to) {
  for (int64_t i = 0; i < rows; ++i, x += stride, to += cols) {
    if (from == Element::kHalf) {
      for (int64_t j = 0; j < cols; ++j) to[j] = from_half(x[j]);
    } else {
      for (int64_t j = 0; j < cols; ++j) to[j] = from_bits(static_cast<uint32_t>(x[j]) << 16);
    }
  }
}

extern const cpu::Simd<float> float_passes;
extern const cpu::Simd<double> double_passes;

const cpu::Simd<float> float_passes = {
    fold<float>,     fold_matching<float>,     fold_online<float>,       above<float>,
    gradient<float>, gradient_matching<float>, gradient_online<float>,   logistic<float>,
    widen<float>,    unit_rows<float>,         unit_rows_gradient<float>};
const cpu::Simd<double> double_passes = {
    fold<double>,     fold_matching<double>,     fold_online<double>,       above<double>,
    gradient<double>, gradient_matching<double>, gradient_online<double>,   logistic<double>,
    widen<double>,    unit_rows<double>,         unit_rows_gradient<double>};

}  // namespace fastcl::FASTCL_SIMD
