// Tokens on their way into the products of late interaction: those that are there, divided by their
// length.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/contrast.h"

namespace fastcl::cpu {

// The tokens of an item that are there.
template <typename T>
struct Found {
  std::vector<const void*> rows;
  std::vector<T> factors;
  std::vector<int32_t> places;  // in the item

  int64_t size() const { return static_cast<int64_t>(rows.size()); }
  void clear() {
    rows.clear();
    factors.clear();
    places.clear();
  }
};

template <typename T>
class TokenSide {
 public:
  TokenSide(Dtype dtype, const Tokens& tokens, int64_t d, bool divided, int64_t workers)
      : dtype_(dtype), tokens_(tokens), d_(d), divided_(divided) {
    if (!divided_) return;
    lengths_ = Buffer<T>(tokens.items * tokens.length);
    factors_ = Buffer<T>(tokens.items * tokens.length);
    run_items(tokens.items, workers, [&](int64_t item, int64_t) {
      std::vector<const void*> rows(tokens.length);
      for (int64_t l = 0; l < tokens.length; ++l) rows[l] = row(item, l);
      const int64_t first = item * tokens.length;
      T* const lengths = lengths_.data() + first;
      simd<T>().row_lengths({dtype_, rows.data(), nullptr, tokens.length}, d_, lengths);
      for (int64_t l = 0; l < tokens.length; ++l) {
        // As torch's normalize; a NaN passes on.
        factors_[first + l] = 1 / (lengths[l] < T(kShortest) ? T(kShortest) : lengths[l]);
      }
    });
  }

  int64_t items() const { return tokens_.items; }
  int64_t length() const { return tokens_.length; }
  // Items that are all there need no numbers of their tokens.
  bool masked() const { return tokens_.mask != nullptr; }

  void append(int64_t item, Found<T>& to) const {
    for (int64_t l = 0; l < tokens_.length; ++l) {
      if (!there(item, l)) continue;
      to.rows.push_back(row(item, l));
      to.factors.push_back(divided_ ? factors_[item * tokens_.length + l] : T(1));
      to.places.push_back(static_cast<int32_t>(l));
    }
  }
  // All tokens of an item.
  Lines<T> lines(int64_t item) const {
    const T* const factors = divided_ ? factors_.data() + item * tokens_.length : nullptr;
    return {dtype_, row(item, 0), factors};
  }

  // The gradient of an item's divided tokens, in place, to that of the tokens as they came.
  void project(int64_t item, T* grad) const {
    std::vector<const void*> rows(tokens_.length);
    std::vector<double> dots(tokens_.length);
    for (int64_t l = 0; l < tokens_.length; ++l) {
      int64_t count = 0;  // neighbours that are there
      for (; l + count < tokens_.length && there(item, l + count); ++count) {
        rows[count] = row(item, l + count);
      }
      simd<T>().project({dtype_, rows.data(), nullptr, count},
                        lengths_.data() + item * tokens_.length + l, d_, grad + l * d_,
                        dots.data());
      l += count;
    }
  }

 private:
  bool there(int64_t item, int64_t l) const {
    return tokens_.mask == nullptr || tokens_.mask[item * tokens_.length + l];
  }
  const void* row(int64_t item, int64_t l) const {
    const int64_t at = (item * tokens_.length + l) * d_ * size_of(dtype_);
    return static_cast<const char*>(tokens_.data) + at;
  }

  const Dtype dtype_;
  const Tokens tokens_;
  const int64_t d_;
  const bool divided_;
  Buffer<T> lengths_, factors_;  // [items, length]
};

// Loss and gradients; what the parts do is said in max_sim.cpp.
template <typename T>
class LateInteraction {
 public:
  explicit LateInteraction(const MaxSim<T>& x)
      : x_(x),
        workers_(products(x) <= kSmall ? 1 : thread_count()),
        n_(x.query.items),
        hard_per_query_(x.hard.items / std::max<int64_t>(1, n_)),
        columns_(x.document.items + hard_per_query_),
        query_(x.dtype, x.query, x.d, x.normalize, workers_),
        document_(x.dtype, x.document, x.d, x.normalize, workers_),
        hard_(x.dtype, x.hard, x.d, x.normalize, workers_),
        pairs_(sizeof(T) == 4 && x.dtype == Dtype::kBFloat16 && x.d % 2 == 0 ? pair_kernel()
                                                                             : nullptr),
        depth_(pairs_ != nullptr ? kPairSlice : kSlice),
        losses_(n_),
        slopes_(n_),
        scratch_(workers_) {
    const int64_t token = columns_ * sizeof(int32_t) + x.d * sizeof(T);
    const int64_t query = x.query.length * token + columns_ * (sizeof(double) + sizeof(T));
    group_ = std::clamp<int64_t>(kChunk / std::max<int64_t>(1, query), 1, n_);
    group_ = ceil_div(n_, ceil_div(n_, group_));
    most_ = group_ * x.query.length;
    q_ = Buffer<T>(most_ * x.d);
    at_ = Buffer<int32_t>(columns_ * most_);
    scores_ = Buffer<double>(group_ * columns_);
    weights_ = Buffer<T>(group_ * columns_);
    for (Scratch& s : scratch_) {
      s.tile = Buffer<T>(kTileTokens * (kBlock + kPadding));
      s.best = Buffer<T>(std::max(kItemTokens, x.query.length));
      const int64_t depth = std::min(depth_, x.d), width = kBlock + kPanel;
      if (pairs_ == nullptr) {
        s.panels = Buffer<T>(width * (depth + kPadding));
      } else {
        s.a = Buffer<uint32_t>((kTileTokens + kSide) * whole_squares(depth / 2));
        s.b = Buffer<uint32_t>(width * whole_squares(depth / 2));
      }
    }
  }

  void operator()();

 private:
  // Tokens of queries at once: their tile with a block of a document stays in L2 beside both.
  static constexpr int64_t kTileTokens = 128;
  // Tokens of an item of work: more items for many threads, but a document is packed for each.
  static constexpr int64_t kItemTokens = 512;
  // Memory of a chunk, and multiplications below which a second thread costs more than it saves.
  static constexpr int64_t kChunk = int64_t{4} << 20;
  static constexpr int64_t kSmall = int64_t{1} << 19;

  struct Scratch {
    Found<T> found;
    Buffer<T> tile, best, panels;
    Buffer<uint32_t> a, b;  // operands of pair products
  };

  static constexpr Dtype kNative = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;

  static double products(const MaxSim<T>& x) {
    const double documents = double(x.document.items) * x.document.length * x.query.items +
                             double(x.hard.items) * x.hard.length;
    return documents * x.query.length * x.d;
  }
  int64_t slices() const { return ceil_div(x_.d, depth_); }
  int32_t* at(int64_t column, int64_t query) const {
    return at_.data() + column * most_ + begin_[query];
  }
  int64_t tokens(int64_t query) const { return begin_[query + 1] - begin_[query]; }

  void clear(T* grad, int64_t size) const {
    if (grad != nullptr) std::fill_n(grad, size, T(0));
  }
  void pack_queries();
  void score();
  void score(const TokenSide<T>& side, int64_t item, int64_t column, int64_t from, int64_t to,
             Scratch& scratch);
  void pack(const Found<T>& found, int64_t col, int64_t cols, int64_t slice, Scratch& scratch);
  void multiply(const Tile<T>& tile, int64_t row, const T* factors, int64_t slice,
                Scratch& scratch);
  void weigh(int64_t query);
  void to_query(int64_t query);
  void to_column(int64_t query, int64_t column, T* to);
  void to_document(int64_t document);
  void to_hard(int64_t query, int64_t number);
  void project(const TokenSide<T>& side, T* grad) const;

  const MaxSim<T>& x_;
  const int64_t workers_, n_, hard_per_query_, columns_;
  const TokenSide<T> query_, document_, hard_;
  const PairKernel pairs_;  // null: products of T
  const int64_t depth_;     // of a product at a time
  const Buffer<double> losses_, slopes_;
  std::vector<Scratch> scratch_;
  int64_t group_, most_;           // queries of a chunk, and their tokens at most
  int64_t first_ = 0, count_ = 0;  // queries of this one
  std::vector<int64_t> begin_;     // [count + 1] of each one's tokens
  Found<T> found_;                 // all of them
  Buffer<T> q_;                    // [tokens, d]
  Buffer<int32_t> at_;             // [columns, tokens] the place of the best token
  Buffer<double> scores_;          // [count, columns]
  Buffer<T> weights_;              // [count, columns] gradient
};

}  // namespace fastcl::cpu
