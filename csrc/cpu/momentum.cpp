// momentum_update_ on the CPU: the widest instruction set that the processor has.
#include "../momentum.h"

namespace fastcl {

using Chunk = void(const MomentumPair&, int64_t, double, const int64_t*, int64_t);

namespace base {
Chunk momentum_chunk;
}
#if defined(__x86_64__)
namespace avx2 {
Chunk momentum_chunk;
}
namespace avx512 {
Chunk momentum_chunk;
}
#endif

namespace {

Chunk* choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512::momentum_chunk;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    return avx2::momentum_chunk;
  }
#endif
  return base::momentum_chunk;
}

}  // namespace

void momentum_update_cpu(const MomentumPair& pair, int64_t begin, double momentum,
                         const int64_t* seed, int64_t stream) {
  static Chunk* const chunk = choose();
  chunk(pair, begin, momentum, seed, stream);
}

}  // namespace fastcl
