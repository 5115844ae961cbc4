// Sixteen float sums that take products of pairs.
#pragma once

#include <immintrin.h>

namespace fastcl::FASTCL_PAIRS {

struct Vector512 {
  __m512 sums;

  static Vector512 load(const float* from) { return {_mm512_loadu_ps(from)}; }
  void store(float* to) const { _mm512_storeu_ps(to, sums); }
  void add(uint32_t pair, const uint32_t* line) {
    const __m512i a = _mm512_set1_epi32(static_cast<int>(pair));
    sums = _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)_mm512_loadu_si512(line));
  }
};

}  // namespace fastcl::FASTCL_PAIRS
