// sinkhorn on the CPU: chunks of rows, whose column sums are added up in order. Their number
// depends on the shape alone, so any number of threads gives the same bits.
//
// All of it at once keeps the exponentials in the output and scales them, one exponential per score
// instead of one per score and pass. Where the column sums span more than that can hold, the passes
// in the log domain do it again from the scores.
#include "../sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "instruction_set.h"
#include "threads.h"

namespace fastcl {

// Rows [begin, end). most and sums [padded]: where most is given, the largest logit of every column
// and the sum of exp(s - most), to begin with minus infinity and zero; else column sums are added
// to sums, or rows are written to out. row [padded] is scratch.
FASTCL_IN_EVERY_SET(void sinkhorn_rows(const Sinkhorn&, int64_t begin, int64_t end, void* most,
                                       void* sums, void* row))
// Exponentials of rows, each less its largest logit, to out and older [r, m]; added to sums, in
// units of exp(top), the largest logit of all.
FASTCL_IN_EVERY_SET(void sinkhorn_powers(const Sinkhorn&, int64_t begin, int64_t end, void* older,
                                         void* sums, void* top, void* row))
// Of these times factors [m], the sums of columns whose rows sum to one, not times factors; or,
// where sums is null, the rows themselves in place.
FASTCL_IN_EVERY_SET(void sinkhorn_scale(const Sinkhorn&, int64_t begin, int64_t end, void* older,
                                        const void* factors, void* sums))

namespace {

// Scores of a chunk at least, and chunks at most: their sums are 1 MB for 4,096 columns.
constexpr int64_t kChunk = 1 << 15;
constexpr int64_t kChunks = 64;

int64_t padded(int64_t m) { return (m + cpu::kMostLanes - 1) / cpu::kMostLanes * cpu::kMostLanes; }

// The chunks of rows of m columns.
struct Chunks {
  int64_t rows, count;

  Chunks(int64_t rows, int64_t m)
      : rows(rows), count(std::min(rows, std::clamp<int64_t>(rows * m / kChunk, 1, kChunks))) {}

  // f(chunk, its first row, its end, scratch of `width`).
  template <typename T, typename F>
  void run(int64_t width, const F& f) const {
    const int64_t workers = std::min<int64_t>(count, cpu::thread_count());
    cpu::parallel(workers, [&](int64_t worker) {
      std::vector<T> scratch(width);
      for (int64_t c = worker; c < count; c += workers) {
        f(c, rows * c / count, rows * (c + 1) / count, scratch.data());
      }
    });
  }
};

// One pass in the log domain.
template <typename T>
void pass(const Sinkhorn& x) {
  auto* const rows = FASTCL_CHOSEN(sinkhorn_rows);
  const int64_t width = padded(x.m);
  const Chunks chunks(x.n + x.r, x.m);
  const bool first = x.potential == nullptr, summed = x.out == nullptr;
  std::vector<T> most(first ? chunks.count * width : 0, -INFINITY);
  std::vector<T> sums(summed ? chunks.count * width : 0);
  chunks.run<T>(width, [&](int64_t c, int64_t begin, int64_t end, T* row) {
    rows(x, begin, end, first ? &most[c * width] : nullptr, summed ? &sums[c * width] : nullptr,
         row);
  });
  for (int64_t j = 0; summed && j < x.m; ++j) {
    double total = 0, high = -INFINITY;
    for (int64_t c = 0; first && c < chunks.count; ++c)
      high = std::max<double>(high, most[c * width + j]);
    for (int64_t c = 0; c < chunks.count; ++c) {
      const double weight = first ? std::exp(most[c * width + j] - high) : 1;
      total += weight * sums[c * width + j];
    }
    static_cast<T*>(x.sums)[j] = static_cast<T>(first ? high + std::log(total) : total);
  }
}

template <typename T>
void in_log_domain(Sinkhorn x, int64_t iterations) {
  std::vector<T> potential(x.m), sums(x.m);
  void* const out = x.out;
  x.potential = x.out = nullptr;
  x.sums = sums.data();
  pass<T>(x);
  for (int64_t j = 0; j < x.m; ++j) potential[j] = -sums[j];
  x.potential = potential.data();
  for (int64_t i = 1; i < iterations; ++i) {
    pass<T>(x);
    for (int64_t j = 0; j < x.m; ++j) potential[j] -= std::log(sums[j]);
  }
  x.sums = nullptr;
  x.out = out;
  x.r = 0;
  pass<T>(x);
}

// One over the column sums, the largest made one. False where the sums span more than 2^72 (in
// double 2^900): exponentials below 2^-126 (2^-1022) were lost, and the n of them in a column may
// be n 2^-54 of its sum, or m 2^-54 of a row's. So too where one is not finite.
template <typename T>
bool factors_of(const std::vector<double>& sums, T* factors) {
  double least = INFINITY, most = 0;
  for (const double sum : sums) {
    if (!(sum > 0 && sum < INFINITY)) return false;
    least = std::min(least, sum);
    most = std::max(most, sum);
  }
  if (most > least * (sizeof(T) == 4 ? 0x1p72 : 0x1p900)) return false;
  for (size_t j = 0; j < sums.size(); ++j) factors[j] = static_cast<T>(least / sums[j]);
  return true;
}

template <typename T>
bool by_scaling(const Sinkhorn& x, int64_t iterations) {
  auto* const powers = FASTCL_CHOSEN(sinkhorn_powers);
  auto* const scale = FASTCL_CHOSEN(sinkhorn_scale);
  const int64_t width = padded(x.m);
  const Chunks chunks(x.n + x.r, x.m);
  const std::unique_ptr<T[]> older(new T[x.r * x.m]);
  std::vector<T> sums(chunks.count * width), factors(width), tops(chunks.count, -INFINITY);
  std::vector<double> total(x.m);
  for (int64_t i = 0; i < iterations; ++i) {
    std::fill(sums.begin(), sums.end(), T(0));
    chunks.run<T>(i == 0 ? width : 0, [&](int64_t c, int64_t begin, int64_t end, T* row) {
      T* const to = &sums[c * width];
      if (i == 0) return powers(x, begin, end, older.get(), to, &tops[c], row);
      scale(x, begin, end, older.get(), factors.data(), to);
    });
    const double high = *std::max_element(tops.begin(), tops.end());
    std::fill(total.begin(), total.end(), 0.0);
    for (int64_t c = 0; c < chunks.count; ++c) {
      const double weight = i == 0 ? std::exp(tops[c] - high) : 1;
      for (int64_t j = 0; j < x.m; ++j) total[j] += weight * sums[c * width + j];
    }
    if (!factors_of(total, factors.data())) return false;
  }
  Chunks(x.n, x.m).run<T>(0, [&](int64_t, int64_t begin, int64_t end, T*) {
    scale(x, begin, end, older.get(), factors.data(), nullptr);
  });
  return true;
}

template <typename T>
void all_passes(const Sinkhorn& x, int64_t iterations) {
  if (!by_scaling<T>(x, iterations)) in_log_domain<T>(x, iterations);
}

}  // namespace

void sinkhorn_cpu(const Sinkhorn& x) {
  if (x.dtype == Dtype::kFloat64) return pass<double>(x);
  pass<float>(x);
}

void sinkhorn_cpu(const Sinkhorn& x, int64_t iterations) {
  if (x.dtype == Dtype::kFloat64) return all_passes<double>(x, iterations);
  all_passes<float>(x, iterations);
}

}  // namespace fastcl
