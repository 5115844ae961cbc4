#include "cpu/threads.h"

#include <torch/csrc/stable/c/shim.h>

#include <stdexcept>

namespace fastcl::cpu {
namespace {

void check(AOTITorchError error, const char* what) {
  if (error != AOTI_TORCH_SUCCESS) throw std::runtime_error(what);
}

}  // namespace

int thread_count() {
  uint32_t count = 1;
  check(torch_get_num_threads(&count), "fastcl: no thread count");
  return static_cast<int>(count);
}

void parallel(int64_t workers, const std::function<void(int64_t)>& work) {
  if (workers == 1) return work(0);
  auto run = [](int64_t begin, int64_t end, void* context) {
    for (int64_t i = begin; i < end; ++i) {
      (*static_cast<const std::function<void(int64_t)>*>(context))(i);
    }
  };
  check(torch_parallel_for(0, workers, 1, run, const_cast<void*>(static_cast<const void*>(&work))),
        "fastcl: a parallel loop failed");
}

}  // namespace fastcl::cpu
