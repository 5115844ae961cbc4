#include "language.h"
//
#include "momentum.cu"  // as tests/cuda_on_host.py rewrote it

extern "C" const char* run(const fastcl::MomentumPair* pairs, int64_t count, double momentum,
                           const void* tensor, int dtype, int64_t* seed) {
  return fastcl::momentum_update_cuda(
      {{pairs, pairs + count}, momentum, tensor, static_cast<fastcl::Dtype>(dtype), seed}, nullptr);
}
