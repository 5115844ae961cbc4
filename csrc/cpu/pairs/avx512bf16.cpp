#define FASTCL_PAIRS avx512bf16
#include "cpu/pairs/product.h"
//
#include "cpu/pairs/avx512bf16.h"

namespace fastcl::avx512bf16 {

void pair_product(const PairProduct& x) { product<Vector512, NoMatrix>(x); }

}  // namespace fastcl::avx512bf16
