#include "cpu/instruction_set.h"

#include <atomic>

namespace fastcl::cpu {
namespace {

std::atomic<InstructionSet>& current() {
  static std::atomic<InstructionSet> set{best_instruction_set()};
  return set;
}

}  // namespace

bool has(InstructionSet set) {
  switch (set) {
    case InstructionSet::kBase:
      return true;
#if defined(__x86_64__)
    case InstructionSet::kAvx2:
    case InstructionSet::kWide:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::kAvx512:
      return has(InstructionSet::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
#endif
    default:
      return false;
  }
}

InstructionSet best_instruction_set() {
  if (has(InstructionSet::kAvx512)) return InstructionSet::kAvx512;
  return has(InstructionSet::kAvx2) ? InstructionSet::kAvx2 : InstructionSet::kBase;
}

InstructionSet instruction_set() { return current().load(std::memory_order_relaxed); }

void use_instruction_set(InstructionSet set) { current() = set; }

int64_t lanes(InstructionSet set) {
  switch (set) {
    case InstructionSet::kBase:
      return 4;
    case InstructionSet::kAvx2:
      return 8;
    default:
      return 16;
  }
}

}  // namespace fastcl::cpu
