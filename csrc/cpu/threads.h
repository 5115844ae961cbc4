// The thread pool of torch.
#pragma once

#include <cstdint>
#include <functional>

namespace fastcl::cpu {

int thread_count();

// work(worker) for every worker in [0, workers), at the same time where there are threads.
void parallel(int64_t workers, const std::function<void(int64_t)>& work);

}  // namespace fastcl::cpu
