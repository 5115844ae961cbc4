// The passes of sinkhorn on the CPU: chunks of rows, whose column sums are added up in order. Their
// number depends on the shape alone, so any number of threads gives the same bits.
#include "../sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "instruction_set.h"
#include "threads.h"

namespace fastcl {

// Rows [begin, end). most and sums [padded]: where most is given, the largest logit of every column
// and the sum of exp(s - most), to begin with minus infinity and zero; else column sums are added
// to sums, or rows are written to out. row [padded] is scratch.
FASTCL_IN_EVERY_SET(void sinkhorn_rows(const Sinkhorn&, int64_t begin, int64_t end, void* most,
                                       void* sums, void* row))

namespace {

constexpr int64_t kPadding = 16;
// Scores of a chunk at least, and chunks at most: their sums are 1 MB for 4,096 columns.
constexpr int64_t kChunk = 1 << 15;
constexpr int64_t kChunks = 64;

template <typename T>
void run(const Sinkhorn& x) {
  static auto* const rows = FASTCL_BEST_OF(sinkhorn_rows);
  const int64_t padded = (x.m + kPadding - 1) / kPadding * kPadding;
  const int64_t chunks = std::min(x.n, std::clamp<int64_t>(x.n * x.m / kChunk, 1, kChunks));
  const bool first = x.potential == nullptr, summed = x.out == nullptr;
  std::vector<T> most(first ? chunks * padded : 0, -INFINITY), sums(summed ? chunks * padded : 0);
  const int64_t workers = std::min<int64_t>(chunks, cpu::thread_count());
  cpu::parallel(workers, [&](int64_t worker) {
    std::vector<T> row(padded);
    for (int64_t c = worker; c < chunks; c += workers) {
      rows(x, x.n * c / chunks, x.n * (c + 1) / chunks, first ? &most[c * padded] : nullptr,
           summed ? &sums[c * padded] : nullptr, row.data());
    }
  });
  for (int64_t j = 0; summed && j < x.m; ++j) {
    double total = 0, high = -INFINITY;
    for (int64_t c = 0; first && c < chunks; ++c)
      high = std::max<double>(high, most[c * padded + j]);
    for (int64_t c = 0; c < chunks; ++c) {
      const double weight = first ? std::exp(most[c * padded + j] - high) : 1;
      total += weight * sums[c * padded + j];
    }
    static_cast<T*>(x.sums)[j] = static_cast<T>(first ? high + std::log(total) : total);
  }
}

}  // namespace

void sinkhorn_cpu(const Sinkhorn& x) {
  if (x.dtype == Dtype::kFloat64) return run<double>(x);
  run<float>(x);
}

}  // namespace fastcl
