// queue_push_: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include "../queue.h"

#include <algorithm>

#include "../tensor.h"

namespace fastcl {
namespace {

bool overlap(const char* a, int64_t a_bytes, const char* b, int64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

QueuePush push_of(Tensor& queue, Tensor& pointer, const Tensor& rows, bool normalize) {
  check(queue.dim() == 2 && rows.dim() == 2 && queue.size(1) == rows.size(1),
        "fastcl: queue and rows must be matrices of one width");
  check(pointer.numel() == 1 && pointer.scalar_type() == ScalarType::Long,
        "fastcl: pointer must be one int64 number");
  check(dtype(queue) != Dtype::kOther && dtype(rows) != Dtype::kOther,
        "fastcl: queue and rows must be floating point");
  check(queue.size(0) > 0, "fastcl: queue must not be empty");
  check_device(rows, queue, "rows");
  check_device(pointer, queue, "pointer");
  QueuePush push;
  push.queue = mutable_data<char>(queue, "queue");
  push.pointer = mutable_data<int64_t>(pointer, "pointer");
  push.queue_dtype = dtype(queue);
  push.rows_dtype = dtype(rows);
  push.size = queue.size(0);
  push.width = queue.size(1);
  push.pushed = rows.size(0);
  push.kept = std::min(push.size, push.pushed);
  push.normalize = normalize;
  const char* first = data<char>(rows, "rows");
  const int64_t row_bytes = push.width * static_cast<int64_t>(rows.element_size());
  push.rows = first + (push.pushed - push.kept) * row_bytes;
  check(!overlap(static_cast<char*>(push.queue),
                 queue.numel() * static_cast<int64_t>(queue.element_size()), first,
                 push.pushed * row_bytes),
        "fastcl: rows must not share memory with queue");
  return push;
}

void queue_push_on_cpu(Tensor queue, Tensor pointer, Tensor rows, bool normalize) {
  const QueuePush push = push_of(queue, pointer, rows, normalize);
  const int64_t first = *push.pointer + push.pushed - push.kept;
  const int64_t position = (first % push.size + push.size) % push.size;
  // Below 32,768 elements, 10 us of copying, waking the threads costs more than they save.
  if (normalize) {
    const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, push.width));
    torch::stable::parallel_for(0, push.kept, grain, [&](int64_t begin, int64_t end) {
      queue_push_unit_cpu(push, position, begin, end);
    });
  } else {
    torch::stable::parallel_for(0, push.kept * push.width, 32768, [&](int64_t begin, int64_t end) {
      queue_push_cpu(push, position, begin, end);
    });
  }
  *push.pointer += push.pushed;
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("queue_push_", TORCH_BOX(&fastcl::queue_push_on_cpu));
}

#ifdef FASTCL_CUDA
namespace fastcl {
namespace {

void queue_push_on_cuda(Tensor queue, Tensor pointer, Tensor rows, bool normalize) {
  const QueuePush push = push_of(queue, pointer, rows, normalize);
  if (push.kept * push.width == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(queue.get_device_index());
  const char* error = queue_push_cuda(push, current_stream(queue));
  check(error == nullptr, "fastcl: queue_push_: ", error);
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CUDA, m) {
  m.impl("queue_push_", TORCH_BOX(&fastcl::queue_push_on_cuda));
}
#endif
