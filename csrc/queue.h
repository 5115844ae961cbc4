// queue_push_: rows r of the last `kept` go to (position + r) % size, divided by their length where
// asked; pointer advances by pushed.
#pragma once

#include "dtype.h"

namespace fastcl {

struct QueuePush {
  void* queue;       // [size, width]
  int64_t* pointer;  // []
  const void* rows;  // [kept, width] the last of those pushed
  Dtype queue_dtype;
  Dtype rows_dtype;
  int64_t size;
  int64_t width;
  int64_t pushed;  // may exceed size
  int64_t kept;    // min(pushed, size)
  bool normalize;  // divide each row by its length, or by kShortestRow where it is shorter
};

constexpr double kShortestRow = 1e-12;

// Elements [begin, end) of the kept rows, laid end to end. Does not advance the pointer.
void queue_push_cpu(const QueuePush& push, int64_t position, int64_t begin, int64_t end);

// The same for whole rows [begin, end), normalised.
void queue_push_unit_cpu(const QueuePush& push, int64_t position, int64_t begin, int64_t end);

// One launch, the pointer included. Null, or what CUDA says is wrong.
const char* queue_push_cuda(const QueuePush& push, void* stream);

}  // namespace fastcl
