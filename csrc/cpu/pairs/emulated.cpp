// The instructions of the other files in plain C++, so that everything around them can be tested
// on any processor.
#include <bit>
#include <cstring>

#define FASTCL_PAIRS emulated
#include "cpu/pairs/product.h"

namespace fastcl::emulated {
namespace {

float low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float high(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

struct Vector {
  float sums[kLanes];

  void store(float* to) const { std::memcpy(to, sums, sizeof(sums)); }
  void add(uint32_t pair, const uint32_t* line) {
    for (int l = 0; l < kLanes; ++l) {
      sums[l] += low(pair) * low(line[l]) + high(pair) * high(line[l]);
    }
  }
};

struct Matrix {
  static constexpr bool kExists = true;
  static constexpr int kRows = 16;
  static inline thread_local uint32_t tiles[8][kRows][kRows];

  static void configure() { std::memset(tiles, 0xff, sizeof(tiles)); }
  static void release() {}
  template <int t>
  static void zero() {
    std::memset(tiles[t], 0, sizeof(tiles[t]));
  }
  template <int t>
  static void load(const uint32_t* from, int64_t stride) {
    for (int i = 0; i < kRows; ++i) {
      std::memcpy(tiles[t][i], reinterpret_cast<const char*>(from) + i * stride, 4 * kRows);
    }
  }
  template <int c, int a, int b>
  static void multiply() {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kRows; ++j) {
        float sum = std::bit_cast<float>(tiles[c][i][j]);
        for (int k = 0; k < kRows; ++k) {
          const uint32_t x = tiles[a][i][k], y = tiles[b][k][j];
          sum += low(x) * low(y) + high(x) * high(y);
        }
        tiles[c][i][j] = std::bit_cast<uint32_t>(sum);
      }
    }
  }
  template <int t>
  static void store(float* to, int64_t stride) {
    for (int i = 0; i < kRows; ++i) {
      std::memcpy(reinterpret_cast<char*>(to) + i * stride, tiles[t][i], 4 * kRows);
    }
  }
};

}  // namespace

void pair_product(const PairProduct& x) { product<Vector, NoMatrix>(x); }
void matrix_product(const PairProduct& x) { product<NoVector, Matrix>(x); }

}  // namespace fastcl::emulated
