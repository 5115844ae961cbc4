// The product of two matrices as they lie or turned: every sum runs over the depth in order, and
// what a thread takes depends on the shape alone, so any number of threads gives the same bits.
#include <algorithm>
#include <vector>

#include "cpu/contrast.h"
#include "cpu/schedule.h"
#include "cpu/simd.h"

namespace fastcl::cpu {
namespace {

constexpr int64_t kStrip = 48;   // columns of a task: a panel of three vectors of sixteen
constexpr int64_t kChunk = 256;  // rows of a task
// Multiplications below which a second thread costs more to wake than it saves.
constexpr int64_t kSmall = int64_t{1} << 19;

}  // namespace

template <typename T>
void product(const Product<T>& x) {
  const int64_t strips = ceil_div(x.d, kStrip), chunks = ceil_div(x.n, kChunk);
  const Dtype dtype = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;
  const int64_t row = x.a_turned ? 1 : x.c, step = x.a_turned ? x.n : 1;
  const int64_t workers = x.n * x.d * x.c <= kSmall ? 1 : thread_count();
  run_items(strips * chunks, workers, [&](int64_t item, int64_t) {
    const int64_t first = item / strips * kChunk, rows = std::min(kChunk, x.n - first);
    const int64_t from = item % strips * kStrip, cols = std::min(kStrip, x.d - from);
    Buffer<T> packed((kStrip + kMostLanes) * kSlice);
    std::vector<const void*> lines(std::max(kStrip, kSlice));
    T* out = x.out + first * x.d + from;
    for (int64_t k = 0; k < x.c; k += kSlice) {
      const int64_t depth = std::min(kSlice, x.c - k);
      const int64_t count = x.b_turned ? cols : depth, begin = x.b_turned ? from : k;
      for (int64_t i = 0; i < count; ++i) {
        lines[i] = x.b + (begin + i) * (x.b_turned ? x.c : x.d);
      }
      const Block<T> block{dtype, lines.data(), nullptr, count};
      if (x.b_turned) {
        simd<T>().pack_columns(block, k, depth, packed.data());
      } else {
        simd<T>().pack_rows(block, from, cols, packed.data());
      }
      simd<T>().product(x.a + first * row + k * step, row, step, rows, packed.data(), depth, cols,
                        nullptr, nullptr, out, x.d, k > 0, false);
    }
  });
}

template void product(const Product<float>&);
template void product(const Product<double>&);

}  // namespace fastcl::cpu
