// What all passes of a contrast do with tiles: form one, tell whether it can hold a positive,
// multiply it with rows.
#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "cpu/pairs.h"
#include "cpu/schedule.h"

namespace fastcl::cpu {

// Memory on a cache line that is not written before it is used.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(::operator new(sizeof(T) * (size + kPadding), kAlign))) {}
  Buffer(int64_t size, T value) : Buffer(size) { std::fill_n(data(), size + kPadding, value); }
  T* data() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(T* x) const { ::operator delete(x, kAlign); }
  };
  std::unique_ptr<T, Free> data_;
};

// Depth of a product at a time: a panel of three vectors (24 KB) and four rows stay in L1.
constexpr int64_t kSlice = 256;

constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// Natural-log units that sums and shifts may span without loss: exp of it times 2^20 columns is
// finite, and its inverse is far from the smallest normal number.
template <typename T>
constexpr double kSpan = sizeof(T) == 4 ? 74 : 690;

// scale * log2(e), cut so that the low part is positive: minus infinity times both is no NaN.
template <typename T>
Scale<T> scale_of(double scale) {
  const long double exact = scale * 1.442695040888963407359924681L;
  T high = static_cast<T>(exact);
  if (high > exact) high = std::nextafter(high, T(0));
  const T low = static_cast<T>(exact - high);
  return {high, low > 0 ? low : high * T(0x1p-60)};
}

// The reduced argument of the exponential holds whole numbers up to 2^22.
inline bool reducible(double scale) { return scale > 1e-20 && scale < 0x1p19; }

// Whether logits of this size may be formed as s * scale: without fused multiply-adds the product
// is rounded, and only differences of similarities serve.
inline bool formed(double logit) {
#if defined(__x86_64__)
  const bool fused = instruction_set() != InstructionSet::kBase;
#else
  constexpr bool fused = true;
#endif
  return std::abs(logit) < (fused ? 0x1p19 : 0x1p6);
}

// lse from the statistics [4, size] of the forward, to more digits than T holds.
template <typename T>
double lse_of(const T* statistics, int64_t size, int64_t i) {
  return static_cast<double>(statistics[i]) + statistics[2 * size + i] + statistics[size + i];
}

// The similarity whose logit is lse, and what T cannot hold of it, as a logit in units of log 2.
template <typename T>
struct Pivot {
  T s, rest;

  Pivot(double lse, double scale) : s(static_cast<T>(lse / scale)) {
    if (!std::isfinite(s)) s = 0;
    const double low = std::fma(-scale, static_cast<double>(s), lse);
    rest = std::isfinite(low) ? static_cast<T>(low * kLog2E) : T(0);
  }
};

// Depth of a product of pairs at a time, in elements: as many bytes as kSlice floats.
constexpr int64_t kPairSlice = 512;

// Some of the features of all rows.
struct Features {
  int64_t begin, end;
};

// Where each row of a matrix begins, and what makes it a unit row.
template <typename T>
class RowTable {
 public:
  // lengths may be null; scaled: there are factors all the same, of 1 then.
  RowTable(Dtype dtype, const Rows& rows, const T* lengths, int64_t n, int64_t d, bool scaled);
  // Unit rows, or rows as they lie.
  Block<T> block(int64_t first, int64_t size) const {
    return {dtype_, rows_.data() + first, factors(first), size};
  }
  Block<T> plain(int64_t first, int64_t size) const {
    return {dtype_, rows_.data() + first, nullptr, size};
  }
  // The rows where they lie end to end, not divided by their length, or null.
  const T* in_place(int64_t first, int64_t size, int64_t d) const;
  const T* factors(int64_t first) const { return scaled_ ? factors_.data() + first : nullptr; }

 private:
  Dtype dtype_;
  bool scaled_;
  std::vector<const void*> rows_;
  Buffer<T> factors_;
};

// A problem, what its rows are divided by, and what each has in common with its own.
template <typename T>
struct Divided : Problem {
  const T* q_lengths;  // [n], or null: as they are
  const T* k_lengths;  // [m]
  const T* extra;      // [n] similarity, or null

  // A product has factors for its rows and its columns, or for neither.
  bool divided() const { return q_lengths != nullptr || k_lengths != nullptr; }
};

template <typename T>
class Tiles {
 public:
  // odd: products of some features may begin or end between two that are multiplied as a pair.
  Tiles(const Divided<T>& x, const Schedule& schedule, bool odd = false);

  const Schedule schedule;
  const int64_t workers;
  const Scale<T> scale;

  int64_t row_begin(int64_t block) const { return block * schedule.rows_per_block; }
  int64_t col_begin(int64_t block) const { return block * schedule.cols_per_block; }

  // Raw similarities of a pair of blocks, in the memory of the worker, or in `to`.
  Tile<T> similarities(const Pair& pair, int64_t worker, T* to = nullptr);
  Tile<T> tile(const Pair& pair, T* at) const;
  int64_t tile_size() const {
    return schedule.rows_per_block * (schedule.cols_per_block + kPadding);
  }
  Match<T> match(const Pair& pair) const;
  bool may_match(const Pair& pair) const;
  // The tile (+)= the products of some features of its rows.
  void multiply(const Tile<T>& tile, const Pair& pair, int64_t worker, Features of,
                bool accumulate);
  // out [rows of the tile, d] += tile times its rows of k; the twin: its transpose times rows of q.
  void times_k(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out) {
    times_k(tile, pair, worker, out, all());
  }
  void times_q(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out) {
    times_q(tile, pair, worker, out, all());
  }
  // The same of some features.
  void times_k(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out, Features of);
  void times_q(const Tile<T>& tile, const Pair& pair, int64_t worker, T* out, Features of);
  Features all() const { return {0, x_.d}; }
  // What is multiplied at a time.
  int64_t slices(Features of) const { return ceil_div(of.end - of.begin, depth()); }
  Features slice(Features of, int64_t i) const {
    const int64_t begin = of.begin + i * depth();
    return {begin, std::min(begin + depth(), of.end)};
  }

 private:
  struct Scratch {
    Buffer<T> tile;
    Buffer<T> panels;              // a slice of a block, packed
    Buffer<T> copy;                // a slice of the block of q, end to end
    int64_t block = -1;            // whose it is, where that is the whole width
    Buffer<T> judge;               // of the tile, by the guide
    Buffer<uint32_t> a, b, mixed;  // operands of pair products
  };

  // The same three with pairs, for bfloat16 rows where the processor multiplies them.
  void pair_multiply(const Tile<float>& tile, const Pair& pair, Scratch& scratch, Features of,
                     bool accumulate);
  void pair_times_k(const Tile<float>& tile, const Pair& pair, Scratch& scratch, float* out,
                    Features of);
  void pair_times_q(const Tile<float>& tile, const Pair& pair, Scratch& scratch, float* out,
                    Features of);

  int64_t depth() const { return pairs_ != nullptr ? kPairSlice : kSlice; }
  int64_t rows_of(int64_t block) const {
    return std::min(schedule.rows_per_block, x_.n - row_begin(block));
  }
  int64_t cols_of(int64_t block) const {
    return std::min(schedule.cols_per_block, x_.m - col_begin(block));
  }
  // Some features of a block of q as they lie, [rows, *stride].
  const T* left(int64_t block, Features of, Scratch& scratch, int64_t* stride);
  void encode();
  void leave_out(const Tile<T>& tile, const Pair& pair, int64_t worker);

  const Divided<T> x_;
  const RowTable<T> q_, k_;
  const PairKernel pairs_;  // null: float products
  std::vector<Scratch> scratch_;
  Buffer<T> limit_;
  std::unique_ptr<Tiles<T>> guide_;        // null: a limit of the similarities themselves
  Buffer<Code<T>> row_codes_, col_codes_;  // ids as small numbers
  struct Range {
    Code<T> least, most;
  };
  std::vector<Range> row_ranges_, col_ranges_;  // of the codes of every block
};

// The gradient of one side or both, or a weighted sum: dq_i += sum_j G_ij k_j, dk_j += sum_i G_ij
// q_i.
template <typename T>
struct Gradient {
  Weights<T> rows, cols;  // cols.in_negative null: no weights along columns
  bool one_shift;         // all powers are 2^(s - shift), which the weights make up for
  T shift;
  bool mirrored;  // k is q and so are their weights: both gradients go to dq
  T* dq;          // [n, d], or null
  T* dk;          // [m, d], or null
};

template <typename T>
void accumulate(const Divided<T>& x, const Gradient<T>& gradient);

// The passes over tiles that contrast.cpp puts together. Gradients are those of the rows as they
// go into the products; what is not wanted is null.
template <typename T>
void forward(const Divided<T>& x, const T* pivot, T* rows, T* cols, int64_t* rank, T* weighted);

template <typename T>
void backward(const Divided<T>& x, const ContrastBackward<T>& given, T* dq, T* dk);

// The mean with its gradients, where all similarities of a chunk of rows are kept, and whether that
// is worth a try.
template <typename T>
bool chunks_serve(const Divided<T>& x);
template <typename T>
void in_chunks(const Divided<T>& x, T* rows, T* cols, T* dq, T* dk);

// The same of one side of the diagonal.
template <typename T>
bool triangle_serves(const Divided<T>& x);
template <typename T>
void in_triangle(const Divided<T>& x, T* rows, T* dz);

// Of the rows' mean in the loss.
inline double share(const Problem& x) { return x.both ? 0.5 : 1; }

// The gradient of the mean to the loss of a row or a column, of which there are `size`, with these
// weights, or none, and statistics.
template <typename T>
double upstream(const Problem& x, const double* weights, const T* statistics, int64_t size,
                int64_t i) {
  const double weight = weights != nullptr ? weights[i] : 1;
  return x.paired || !(statistics[3 * size + i] == 0) ? weight * share(x) / size : 0;
}

template <typename T>
double upstream_of_row(const Problem& x, const T* rows, int64_t i) {
  return upstream(x, x.row_weight, rows, x.n, i);
}

template <typename T>
double upstream_of_column(const Problem& x, const T* cols, int64_t j) {
  return upstream(x, x.col_weight, cols, x.m, j);
}

}  // namespace fastcl::cpu
