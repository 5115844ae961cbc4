// What csrc/cuda/hopper.h says in assembly, on the host. Bulk copies land at random, each block's
// on its own; a product reads its operands when it is committed or as late as its wait allows. It
// waits for the four warps of its warpgroup, as CUTLASS too takes for granted: there one thread of
// them says that operands have been read.
#pragma once

#include "language.h"

struct alignas(64) CUtensorMap {
  uint64_t opaque[16];
};

namespace emulated {

// What a map says to the copy engine, see tensor_map_on_host.h.
struct Matrix {
  const uint8_t* x;
  uint64_t width, rows, stride;  // elements, and bytes from row to row
  uint32_t box_width, box_rows;
};
static_assert(sizeof(Matrix) <= sizeof(CUtensorMap));

// In the 64 bits of an mbarrier. Poisoned memory has neither phase.
struct Barrier {
  int32_t bytes;  // still to arrive in this phase
  uint8_t arrivals, left;
  uint16_t phase;
};

inline Barrier& barrier_in(Block& block, const uint64_t* at) {
  if (block.living == 0) fail("a barrier of a block that is gone");
  const auto offset = reinterpret_cast<const uint8_t*>(at) - now->block->memory.get();
  auto& barrier = *reinterpret_cast<Barrier*>(block.memory.get() + offset);
  if (barrier.phase > 1) fail("a barrier that nobody initialised");
  return barrier;
}

inline void end_phase(Barrier& x) {
  if (x.left == 0 && x.bytes == 0) x.phase ^= 1, x.left = x.arrivals;
}

inline void arrive(Barrier& x) {
  if (x.left == 0) fail("one arrival too many");
  --x.left;
  end_phase(x);
}

// Bits 4 to 6 of an address are exchanged with bits 7 to 9 by the swizzle of 128 bytes.
inline size_t swizzled(size_t address) { return address ^ (address >> 3 & 0x70); }

inline void copy_box(const Matrix& m, Block& block, size_t to, int feature, int row) {
  for (uint32_t r = 0; r < m.box_rows; ++r) {
    for (uint32_t c = 0; c < m.box_width; ++c) {
      const bool inside = row + r < m.rows && feature + c < m.width;
      uint16_t x = 0;
      if (inside) std::memcpy(&x, m.x + (row + r) * m.stride + 2 * (feature + c), 2);
      std::memcpy(block.memory.get() + swizzled(to + 2 * (r * m.box_width + c)), &x, 2);
    }
  }
}

struct Product {
  uint64_t a, b;
  bool accumulate;
  float* sums[128];  // of each thread
};

struct Group {
  std::vector<Product> products;
  unsigned committed = 0;
  bool done = false;
};

inline Group& group(size_t index) {
  auto& groups = now->block->groups[now->thread / 128];
  if (groups.size() == index) groups.push_back(std::make_shared<Group>());
  return *groups[index];
}

// Rows of 16 numbers from where a descriptor points to: eight rows 128 bytes apart, then the
// stride.
template <int rows>
void read_operand(uint64_t descriptor, float (&to)[16][rows]) {
  const size_t start = (descriptor & 0x3FFF) << 4, stride = (descriptor >> 32 & 0x3FFF) << 4;
  if (descriptor >> 62 != 1) fail("not the swizzle of 128 bytes");
  for (int r = 0; r < rows; ++r) {
    for (int k = 0; k < 16; ++k) {
      uint16_t x;
      const size_t at = swizzled(start + r / 8 * stride + r % 8 * 128 + 2 * k);
      std::memcpy(&x, now->block->memory.get() + at, 2);
      to[k][r] = fastcl::widen(static_cast<fastcl::BFloat16>(x));
    }
  }
}

// Thread t has rows 16 (t / 32) + t % 32 / 4 + {0, 8}, of eight columns 2 (t % 4) + {0, 1}: PTX
// ISA, "Register Fragments for wgmma.mma_async.m64nNk16".
[[gnu::optimize("O3")]] inline void multiply(const Product& x) {
  static float a[16][64], b[16][256], sums[64][256];
  read_operand(x.a, a);
  read_operand(x.b, b);
  const auto place = [&](int t, int i) -> float& {
    return sums[16 * (t / 32) + t % 32 / 4 + i % 4 / 2 * 8][i / 4 * 8 + 2 * (t % 4) + i % 2];
  };
  std::memset(sums, 0, sizeof(sums));
  for (int t = 0; x.accumulate && t < 128; ++t) {
    for (int i = 0; i < 128; ++i) place(t, i) = x.sums[t][i];
  }
  for (int r = 0; r < 64; ++r) {
    for (int k = 0; k < 16; ++k) {
      for (int c = 0; c < 256; ++c) sums[r][c] += a[k][r] * b[k][c];
    }
  }
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < 128; ++i) x.sums[t][i] = place(t, i);
  }
}

// All groups of the warpgroup up to this one: they run in order.
inline void finish(size_t index) {
  for (size_t i = 0; i <= index; ++i) {
    Group& x = group(i);
    if (std::exchange(x.done, true)) continue;
    for (const Product& product : x.products) multiply(product);
    x.products.clear();
  }
}

}  // namespace emulated

namespace fastcl::hopper {

using emulated::now;

inline void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  const auto count = static_cast<uint8_t>(arrivals);
  *reinterpret_cast<emulated::Barrier*>(barrier) = {0, count, count, 0};
}
inline void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  auto& x = emulated::barrier_in(*now->block, barrier);
  x.bytes += bytes;
  emulated::arrive(x);
}
inline void barrier_arrive(uint64_t* barrier, uint32_t block) {
  emulated::arrive(emulated::barrier_in(emulated::blocks[block], barrier));
}
inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  const auto& x = emulated::barrier_in(*now->block, barrier);
  emulated::wait_until([&x, parity] { return x.phase != parity; });
}

inline void cluster_meet() { emulated::meet(emulated::cluster_meeting, emulated::fibers.size()); }
inline uint32_t cluster_rank() { return now->block - emulated::blocks.data(); }
inline void meet(int id, int threads) { emulated::meet(now->block->meetings[id], threads); }
inline void announce(int id, int threads) { emulated::announce(now->block->meetings[id], threads); }

template <int registers>
void take_registers() {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256);
}
template <int registers>
void give_registers() {
  take_registers<registers>();
}

inline void load_tile(void* to, const CUtensorMap* map, uint64_t* barrier, int feature, int row,
                      uint16_t mask) {
  const auto matrix = *reinterpret_cast<const emulated::Matrix*>(map);
  const size_t at = __cvta_generic_to_shared(to);
  if (at % 1024 != 0) emulated::fail("a tile that is not at 1024 bytes");
  for (size_t i = 0; i < emulated::blocks.size(); ++i) {
    if ((mask >> i & 1) == 0) continue;
    auto& block = emulated::blocks[i];
    auto& x = emulated::barrier_in(block, barrier);
    emulated::in_flight.push_back([=, &block, &x] {
      emulated::copy_box(matrix, block, at, feature, row);
      x.bytes -= 2 * matrix.box_width * matrix.box_rows;
      emulated::end_phase(x);
    });
  }
}
inline void load_tile(void* to, const CUtensorMap* map, uint64_t* barrier, int feature, int row) {
  load_tile(to, map, barrier, feature, row, 1 << cluster_rank());
}

inline void product_fence() {}
inline void product_64x256x16(float (&d)[128], uint64_t a, uint64_t b, int accumulate) {
  auto& products = emulated::group(now->groups).products;
  const unsigned thread = now->thread % 128;
  size_t i = 0;  // the first that this thread has no part in yet
  while (i < products.size() && products[i].sums[thread] != nullptr) ++i;
  if (i == products.size()) products.push_back({a, b, accumulate != 0, {}});
  if (products[i].a != a || products[i].b != b) emulated::fail("threads differ in an operand");
  products[i].sums[thread] = d;
}
inline void product_commit() {
  const size_t index = now->groups++;
  if (++emulated::group(index).committed == 128 && emulated::random() % 2) emulated::finish(index);
}
template <int open>
void product_wait() {
  if (now->groups <= open) return;
  const size_t last = now->groups - 1 - open;
  const auto& group = emulated::group(last);
  emulated::wait_until([&group] { return group.committed == 128; });
  emulated::finish(last);
}

}  // namespace fastcl::hopper
