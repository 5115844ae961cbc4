// Which instruction set runs here: asked once.
#include "cpu/simd.h"

namespace fastcl {

#define FASTCL_DECLARE(set)                 \
  namespace set {                           \
  extern const cpu::Simd<float> float_passes;   \
  extern const cpu::Simd<double> double_passes; \
  }
FASTCL_DECLARE(base)
#if defined(__x86_64__)
FASTCL_DECLARE(avx2)
FASTCL_DECLARE(avx512)
#endif
#undef FASTCL_DECLARE

namespace cpu {
namespace {

enum class Set { kBase, kAvx2, kAvx512 };

Set best_set() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Set::kAvx512;
  }
  if (avx2) return Set::kAvx2;
#endif
  return Set::kBase;
}

}  // namespace

template <typename T>
const Simd<T>& simd() {
  static const Set set = best_set();
  constexpr bool narrow = std::is_same_v<T, float>;
#if defined(__x86_64__)
  if constexpr (narrow) {
    if (set == Set::kAvx512) return avx512::float_passes;
    if (set == Set::kAvx2) return avx2::float_passes;
  } else {
    if (set == Set::kAvx512) return avx512::double_passes;
    if (set == Set::kAvx2) return avx2::double_passes;
  }
#endif
  (void)set;
  if constexpr (narrow) {
    return base::float_passes;
  } else {
    return base::double_passes;
  }
}

template const Simd<float>& simd<float>();
template const Simd<double>& simd<double>();

}  // namespace cpu
}  // namespace fastcl
