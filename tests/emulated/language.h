// The words of CUDA C++ that csrc/cuda uses, for a C++ compiler. The stand-in for NVIDIA's headers:
// none of them is needed.
#pragma once

#include <math.h>

#include <bit>

#include "cpu/float16.h"
#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define CUDART_VERSION 13000

#define threadIdx (emulated::Dim{emulated::now->thread, 0, 0})
#define blockIdx (emulated::Dim{emulated::now->block->index, 0, 0})
#define gridDim (emulated::Dim{emulated::grid, 1, 1})

using std::max;
using std::min;

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct __half {
  uint16_t bits;
  __half() = default;
  explicit __half(float x) : bits(static_cast<uint16_t>(fastcl::narrow<fastcl::Half>(x))) {}
  operator float() const { return fastcl::widen(static_cast<fastcl::Half>(bits)); }
};

struct __nv_bfloat16 {
  uint16_t bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float x)
      : bits(static_cast<uint16_t>(fastcl::narrow<fastcl::BFloat16>(x))) {}
  operator float() const { return fastcl::widen(static_cast<fastcl::BFloat16>(bits)); }
};

inline __half __ushort_as_half(uint16_t bits) { return std::bit_cast<__half>(bits); }
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) {
  return std::bit_cast<__nv_bfloat16>(bits);
}
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline float __fmul_rn(float a, float b) { return a * b; }  // with -ffp-contract=off
inline double __dmul_rn(double a, double b) { return a * b; }

inline void __syncthreads() {
  emulated::meet(emulated::now->block->meetings[0], emulated::now->block->threads);
}
inline void __syncwarp() { emulated::meet(emulated::now->warp->meeting, 32); }
template <typename T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  return emulated::exchange(x, mask);
}
inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long x) {
  return std::exchange(*at, *at + x);
}
inline unsigned long long atomicExch(unsigned long long* at, unsigned long long x) {
  return std::exchange(*at, x);
}
inline size_t __cvta_generic_to_shared(const void* x) {
  return static_cast<const uint8_t*>(x) - emulated::now->block->memory.get();
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorLaunchFailure };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline cudaError_t cudaGetLastError() {
  return emulated::failure.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}
inline const char* cudaGetErrorString(cudaError_t) { return emulated::failure.c_str(); }

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, size_t bytes) {
  emulated::failure = bytes > emulated::kMostShared ? "too much shared memory" : "";
  return cudaGetLastError();
}

// ex2.approx.ftz: subnormal results are zero.
inline float power_of_two(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0 : y;
}
