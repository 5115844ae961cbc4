// Matrix registers of 16 rows of 64 bytes: one instruction is 16 x 16 x 32 products.
#define FASTCL_PAIRS amx
#include <immintrin.h>

#include "cpu/pairs/product.h"

namespace fastcl::amx {
namespace {

struct Matrix {
  static constexpr bool kExists = true;

  static void configure() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  static void release() { _tile_release(); }
  // The compiler's own functions want literal numbers of registers, not template arguments.
  template <int t>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(t));
  }
  template <int t>
  static void load(const uint32_t* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(t), "r"(from), "r"(stride) : "memory");
  }
  template <int c, int a, int b>
  static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
  template <int t>
  static void store(float* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(t), "r"(to), "r"(stride) : "memory");
  }
};

}  // namespace

void pair_product(const PairProduct& x) { product<NoVector, Matrix>(x); }

}  // namespace fastcl::amx
