// Random views on the CPU: threads take views from one counter, the views of an image after each
// other, while it is in cache. Every thread has its own scratch.
#include "random_views.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "cpu/instruction_set.h"
#include "cpu/threads.h"

namespace fastcl {

FASTCL_IN_EVERY_SET(int64_t random_view_scratch(const RandomViews& x);
                    void random_view(const RandomViews& x, int64_t image, int64_t view,
                                     char* scratch))

namespace cpu {
namespace {

// Pixels of views below which a second thread costs more to wake than it saves.
constexpr int64_t kPart = 1 << 13;
constexpr int64_t kAlignment = 64;

}  // namespace

void random_views(const RandomViews& x, int64_t threads) {
  auto* const one = FASTCL_CHOSEN(random_view);
  auto* const scratch_of = FASTCL_CHOSEN(random_view_scratch);
  const int64_t bytes = scratch_of(x) + kAlignment, views = x.b * x.views;
  const int64_t parts = std::max<int64_t>(1, views * x.size * x.size / kPart);
  std::atomic<int64_t> next{0};
  // The views of one image, or of a few small ones, but enough turns for all threads.
  const int64_t workers = std::min({threads, parts, views});
  int64_t turn = std::clamp<int64_t>(views / (8 * workers), 1, x.views * 16);
  if (turn > x.views) turn -= turn % x.views;
  // The last ones view by view, so that no thread waits for long.
  const int64_t whole = std::max<int64_t>(0, views / turn - 2 * workers) * turn;
  parallel(workers, [&](int64_t) {
    const std::unique_ptr<char[]> memory(new char[bytes]);
    char* scratch =
        memory.get() + kAlignment - reinterpret_cast<uintptr_t>(memory.get()) % kAlignment;
    while (true) {
      const int64_t ticket = next.fetch_add(1), after = ticket - whole / turn;
      const int64_t first = after < 0 ? ticket * turn : whole + after;
      if (first >= views) return;
      for (int64_t i = first; i < first + (after < 0 ? turn : 1); ++i) {
        one(x, i / x.views, i % x.views, scratch);
      }
    }
  });
}

}  // namespace cpu
}  // namespace fastcl
