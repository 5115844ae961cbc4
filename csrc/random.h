// The random bits of stochastic rounding: fastcl/reference.py has the same in PyTorch, bit for bit.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define FASTCL_BOTH __host__ __device__ __forceinline__
#else
#define FASTCL_BOTH inline
#endif

namespace fastcl {
namespace {  // compiled per instruction set: the linker must not merge the copies

// Steele et al. 2014, the finaliser of SplitMix64.
FASTCL_BOTH uint64_t splitmix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

FASTCL_BOTH uint64_t random_key(int64_t seed, int64_t stream) {
  return splitmix((static_cast<uint64_t>(seed) & 0xFFFFFFFFu) | static_cast<uint64_t>(stream)
                                                                    << 32);
}

// 32 bits for elements 2 pair and 2 pair + 1: a keyed two-round multiply-xorshift hash. 32-bit
// products only, because neither AVX2 nor a GPU has the wide one at full rate.
FASTCL_BOTH uint32_t random_bits(uint64_t key, uint32_t pair) {
  uint32_t x = pair + static_cast<uint32_t>(key);
  x = (x ^ (x >> 16)) * 0x7FEB352Du + static_cast<uint32_t>(key >> 32);
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

// The key for pairs beyond 2^32 of one tensor.
FASTCL_BOTH uint64_t offset_key(uint64_t key, uint64_t pair) {
  const uint32_t low = static_cast<uint32_t>(key) + static_cast<uint32_t>(pair >> 32) * 0x9E3779B9u;
  return (key & 0xFFFFFFFF00000000u) | low;
}

}  // namespace
}  // namespace fastcl
