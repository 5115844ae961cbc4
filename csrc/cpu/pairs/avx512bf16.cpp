// Sixteen float sums that take products of pairs.
#define FASTCL_PAIRS avx512bf16
#include <immintrin.h>

#include "cpu/pairs/product.h"

namespace fastcl::avx512bf16 {
namespace {

struct Vector512 {
  __m512 sums;

  void store(float* to) const { _mm512_storeu_ps(to, sums); }
  void add(uint32_t pair, const uint32_t* line) {
    const __m512i a = _mm512_set1_epi32(static_cast<int>(pair));
    sums = _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)_mm512_loadu_si512(line));
  }
};

}  // namespace

void pair_product(const PairProduct& x) { product<Vector512, NoMatrix>(x); }

}  // namespace fastcl::avx512bf16
