// Kernels that are compiled once per instruction set, and which of them runs: the widest set that
// the processor has, unless a test asks for another.
#pragma once

#include <cstdint>

// FASTCL_CHOSEN(name) is name of the namespace of that set; FASTCL_IN_EVERY_SET declares it.
#if defined(__x86_64__)
#define FASTCL_IN_EVERY_SET(declaration) \
  namespace base {                       \
  declaration;                           \
  }                                      \
  namespace avx2 {                       \
  declaration;                           \
  }                                      \
  namespace wide {                       \
  declaration;                           \
  }                                      \
  namespace avx512 {                     \
  declaration;                           \
  }
#define FASTCL_CHOSEN(name) ::fastcl::cpu::chosen(base::name, avx2::name, wide::name, avx512::name)
#else
#define FASTCL_IN_EVERY_SET(declaration) \
  namespace base {                       \
  declaration;                           \
  }
#define FASTCL_CHOSEN(name) (base::name)
#endif

namespace fastcl::cpu {

// Float lanes of the widest vectors that are compiled. What a vector reads or writes past the end
// of its columns is padding, this long, or it lies in its own block: blocks of columns begin at
// multiples of it. Nothing read there may be another block's.
constexpr int64_t kMostLanes = 16;

// In the order of their vectors. kWide has those of AVX-512 on AVX2, each as two: what 16 lanes do
// can be tested on any processor with AVX2; nobody else takes it.
enum class InstructionSet { kBase, kAvx2, kWide, kAvx512 };

bool has(InstructionSet set);
InstructionSet instruction_set();
int64_t lanes(InstructionSet set);  // of float
// For the tests.
void use_instruction_set(InstructionSet set);
InstructionSet best_instruction_set();

#if defined(__x86_64__)
template <typename F>
F& chosen(F& base, F& avx2, F& wide, F& avx512) {
  switch (instruction_set()) {
    case InstructionSet::kAvx512:
      return avx512;
    case InstructionSet::kWide:
      return wide;
    case InstructionSet::kAvx2:
      return avx2;
    default:
      return base;
  }
}
#endif

}  // namespace fastcl::cpu
