// One call of a kernel by one thread and by several: the same bits. Where AddressSanitizer looks,
// by one thread in the narrower instruction sets too, whose vectors end elsewhere.
#pragma once

#include "../emulated/compare.h"
#include "cpu/threads.h"
#include "threads.h"

namespace threads {

using namespace emulated;

inline void under_threads(const std::string& name, const std::function<Arrays()>& run) {
  use(1);
#if defined(__SANITIZE_ADDRESS__)
  const InstructionSet best = cpu::best_instruction_set();
  for (auto set : {InstructionSet::kBase, InstructionSet::kAvx2, InstructionSet::kWide}) {
    if (set == best || !cpu::has(set)) continue;
    cpu::use_instruction_set(set);
    run();
  }
  cpu::use_instruction_set(best);
#endif
  const Arrays alone = run();
  for (int count : {2, 3, 5}) {
    use(count);
    compare(name + " by " + std::to_string(count) + " threads", alone, run(), 0);
  }
}

// What the operators do with a kernel that takes a range: several threads, a part each.
inline void in_parts(int64_t size, const std::function<void(int64_t, int64_t)>& work) {
  const int64_t parts = cpu::thread_count();
  cpu::parallel(parts, [&](int64_t i) { work(i * size / parts, (i + 1) * size / parts); });
}

void contrasts();
void views();

}  // namespace threads
