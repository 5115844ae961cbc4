// The widest instruction set that the processor has, for kernels that are compiled once per set.
#pragma once

#include <utility>

// FASTCL_BEST_OF(name) is name of the namespace of that set; FASTCL_IN_EVERY_SET declares it.
#if defined(__x86_64__)
#define FASTCL_IN_EVERY_SET(declaration) \
  namespace base {                       \
  declaration;                           \
  }                                      \
  namespace avx2 {                       \
  declaration;                           \
  }                                      \
  namespace avx512 {                     \
  declaration;                           \
  }
#define FASTCL_BEST_OF(name) ::fastcl::cpu::best_of(base::name, avx2::name, avx512::name)
#else
#define FASTCL_IN_EVERY_SET(declaration) \
  namespace base {                       \
  declaration;                           \
  }
#define FASTCL_BEST_OF(name) (base::name)
#endif

namespace fastcl::cpu {

#if defined(__x86_64__)
template <typename F>
F& best_of(F& base, F& avx2, F& avx512) {
  const bool wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512;
  }
  return wide ? avx2 : base;
}
#endif

}  // namespace fastcl::cpu
