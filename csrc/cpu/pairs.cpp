// Which products of pairs run.
#include "cpu/pairs.h"

#include <atomic>
#include <cstring>

#include "cpu/instruction_set.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastcl {

namespace emulated {
void pair_product(const cpu::PairProduct&);
void matrix_product(const cpu::PairProduct&);
}  // namespace emulated
#ifdef FASTCL_X86_PAIRS
namespace avx512bf16 {
void pair_product(const cpu::PairProduct&);
}
namespace amx {
void pair_product(const cpu::PairProduct&);
}
#endif

namespace cpu {
namespace {

std::atomic<PairProducts>& current() {
  static std::atomic<PairProducts> products{best_pair_products()};
  return products;
}

#if defined(FASTCL_X86_PAIRS) && defined(__linux__)
bool has_avx512bf16() {
  unsigned a, b, c, d;
  return has(InstructionSet::kAvx512) && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
         (a >> 5 & 1) != 0;
}

// The matrix registers belong to a process only after it has asked the kernel for them.
bool has_amx() {
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
  if ((d & bf16) == 0 || (d & tile) == 0) return false;
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request, tile_data) == 0;
}
#endif

}  // namespace

bool has(PairProducts products) {
  switch (products) {
    case PairProducts::kWidened:
    case PairProducts::kEmulatedVectors:
    case PairProducts::kEmulatedMatrices:
      return true;
#if defined(FASTCL_X86_PAIRS) && defined(__linux__)
    case PairProducts::kAvx512Bf16:
      return has_avx512bf16();
    case PairProducts::kAmx:
      return has_avx512bf16() && has_amx();
#endif
    default:
      return false;
  }
}

PairProducts best_pair_products() {
  if (has(PairProducts::kAmx)) return PairProducts::kAmx;
#if defined(__x86_64__)
  // Intel's vectors of pairs are slower than those of floats: benchmarks/results/processor.md.
  const bool slow = __builtin_cpu_is("intel");
#else
  const bool slow = false;
#endif
  return has(PairProducts::kAvx512Bf16) && !slow ? PairProducts::kAvx512Bf16
                                                 : PairProducts::kWidened;
}

PairProducts pair_products() { return current().load(std::memory_order_relaxed); }

void use_pair_products(PairProducts products) { current() = products; }

void pack_squares(const void* const* rows, int64_t size, int64_t from, int64_t pairs,
                  uint32_t* to) {
  const int64_t depth = whole_squares(pairs);
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t* row = static_cast<const uint32_t*>(rows[i]) + from;
    uint32_t* line = to + i / kSide * kSide * depth + i % kSide * kSide;
    int64_t k = 0;
    for (; k + kSide <= pairs; k += kSide, line += kSquare) {
      std::memcpy(line, row + k, kSide * sizeof(*line));
    }
    if (k == pairs) continue;
    std::memset(line, 0, kSide * sizeof(*line));
    std::memcpy(line, row + k, (pairs - k) * sizeof(*line));
  }
}

PairKernel pair_kernel() {
  switch (pair_products()) {
    case PairProducts::kEmulatedVectors:
      return emulated::pair_product;
    case PairProducts::kEmulatedMatrices:
      return emulated::matrix_product;
#ifdef FASTCL_X86_PAIRS
    case PairProducts::kAvx512Bf16:
      return avx512bf16::pair_product;
    case PairProducts::kAmx:
      return amx::pair_product;
#endif
    default:
      return nullptr;
  }
}

}  // namespace cpu
}  // namespace fastcl
