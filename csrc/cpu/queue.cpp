// queue_push_ on the CPU: the kept rows, end to end, are at most two runs of the ring.
#include "../queue.h"

#include <algorithm>
#include <cstring>

#include "float16.h"

namespace fastcl {
namespace {

template <typename T, typename F>
void convert(T* queue, const F* rows, int64_t count) {
  if constexpr (std::is_same_v<T, F>) {
    std::memcpy(queue, rows, count * sizeof(T));
  } else {
    for (int64_t i = 0; i < count; ++i) queue[i] = narrow<T>(widen(rows[i]));
  }
}

template <typename T, typename F>
void push(const QueuePush& push, int64_t position, int64_t begin, int64_t end) {
  const int64_t capacity = push.size * push.width;
  T* queue = static_cast<T*>(push.queue);
  const F* rows = static_cast<const F*>(push.rows);
  const int64_t start = position * push.width;
  while (begin < end) {
    const int64_t at = (start + begin) % capacity;
    const int64_t run = std::min(end - begin, capacity - at);
    convert(queue + at, rows + begin, run);
    begin += run;
  }
}

template <typename T>
void push_from(const QueuePush& p, int64_t position, int64_t begin, int64_t end) {
  switch (p.rows_dtype) {
    case Dtype::kFloat16:
      return push<T, Half>(p, position, begin, end);
    case Dtype::kBFloat16:
      return push<T, BFloat16>(p, position, begin, end);
    case Dtype::kFloat64:
      return push<T, double>(p, position, begin, end);
    default:
      return push<T, float>(p, position, begin, end);
  }
}

}  // namespace

void queue_push_cpu(const QueuePush& p, int64_t position, int64_t begin, int64_t end) {
  switch (p.queue_dtype) {
    case Dtype::kFloat16:
      return push_from<Half>(p, position, begin, end);
    case Dtype::kBFloat16:
      return push_from<BFloat16>(p, position, begin, end);
    case Dtype::kFloat64:
      return push_from<double>(p, position, begin, end);
    default:
      return push_from<float>(p, position, begin, end);
  }
}

}  // namespace fastcl
