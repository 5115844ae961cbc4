#include "threads.h"

#include <thread>
#include <vector>

#include "cpu/threads.h"

namespace threads {
namespace {
int count = 1;
}

void use(int wanted) { count = wanted; }

}  // namespace threads

namespace fastcl::cpu {

int thread_count() { return threads::count; }

void parallel(int64_t workers, const std::function<void(int64_t)>& work) {
  if (workers == 1) return work(0);
  std::vector<std::thread> running;
  for (int64_t i = 0; i < workers; ++i) running.emplace_back([&work, i] { work(i); });
  for (std::thread& thread : running) thread.join();
}

}  // namespace fastcl::cpu
