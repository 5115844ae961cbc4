#include "cpu/large_pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastcl::cpu {
namespace {

// What most allocators hand out again and again without giving it back in between.
[[maybe_unused]] constexpr int64_t kLarge = 4 << 20;
[[maybe_unused]] constexpr uintptr_t kPage = 4096;

}  // namespace

void use_large_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes < kLarge) return;
  // From the beginning of its page on, where a block of its own begins. Where the system refuses,
  // pages are as before.
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory), within = at % kPage;
  madvise(reinterpret_cast<void*>(at - within), bytes + within, MADV_HUGEPAGE);
#endif
}

}  // namespace fastcl::cpu
