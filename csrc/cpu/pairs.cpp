// Which products of pairs this processor has: asked once.
#include "cpu/pairs.h"

#include <atomic>

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

std::atomic<int> emulated_form{0};

#if defined(FASTCL_X86_PAIRS) && defined(__linux__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512bf16() {
  unsigned a, b, c, d;
  return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
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

PairKernel best_kernel() {
  if (!has_avx512bf16()) return nullptr;
  return has_amx() ? amx::pair_product : avx512bf16::pair_product;
}
#else
PairKernel best_kernel() { return nullptr; }
#endif

}  // namespace

PairKernel pair_kernel() {
  const int form = emulated_form.load(std::memory_order_relaxed);
  if (form != 0) return form == 1 ? emulated::pair_product : emulated::matrix_product;
  static const PairKernel kernel = best_kernel();
  return kernel;
}

void emulate_pair_products(int form) { emulated_form = form; }

}  // namespace cpu
}  // namespace fastcl
