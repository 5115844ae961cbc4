// queue_push_ on the CPU: the kept rows, end to end, are at most two runs of the ring. Normalised
// rows are read twice, the second time from cache.
#include "../queue.h"

#include <algorithm>
#include <cmath>
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

template <typename T, typename F>
void push_unit(const QueuePush& push, int64_t position, int64_t begin, int64_t end) {
  using A = std::conditional_t<std::is_same_v<F, double>, double, float>;
  constexpr int64_t kSums = 16;  // side by side: what vectors want
  for (int64_t row = begin; row < end; ++row) {
    const F* x = static_cast<const F*>(push.rows) + row * push.width;
    T* y = static_cast<T*>(push.queue) + (position + row) % push.size * push.width;
    A sums[kSums] = {};
    for (int64_t j = 0; j < push.width; ++j) {
      const A value = static_cast<A>(widen(x[j]));
      sums[j % kSums] += value * value;
    }
    A square = 0;
    for (const A sum : sums) square += sum;
    const A root = std::sqrt(square);
    const A length = root < A(kShortestRow) ? A(kShortestRow) : root;  // NaN passes on
    for (int64_t j = 0; j < push.width; ++j) {
      y[j] = narrow<T>(static_cast<A>(widen(x[j])) / length);
    }
  }
}

// f(type of the queue, type of the rows).
template <typename Function>
void with_types(const QueuePush& p, const Function& f) {
  const auto from = [&](auto to) {
    switch (p.rows_dtype) {
      case Dtype::kFloat16:
        return f(to, Half{});
      case Dtype::kBFloat16:
        return f(to, BFloat16{});
      case Dtype::kFloat64:
        return f(to, double{});
      default:
        return f(to, float{});
    }
  };
  switch (p.queue_dtype) {
    case Dtype::kFloat16:
      return from(Half{});
    case Dtype::kBFloat16:
      return from(BFloat16{});
    case Dtype::kFloat64:
      return from(double{});
    default:
      return from(float{});
  }
}

}  // namespace

void queue_push_cpu(const QueuePush& p, int64_t position, int64_t begin, int64_t end) {
  with_types(
      p, [&](auto to, auto from) { push<decltype(to), decltype(from)>(p, position, begin, end); });
}

void queue_push_unit_cpu(const QueuePush& p, int64_t position, int64_t begin, int64_t end) {
  with_types(p, [&](auto to, auto from) {
    push_unit<decltype(to), decltype(from)>(p, position, begin, end);
  });
}

}  // namespace fastcl
