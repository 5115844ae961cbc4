// Late interaction on the CPU (Khattab and Zaharia 2020, equation 3): with the documents j of row
// i, its own hard ones among them,
//     S_ij = sum_t max_u <q_it, k_ju>,   loss_i = log sum_j exp(s S_ij) - s S_ii
//     dq_it = sum_j G_ij k_ju,   dk_ju = sum of G_ij q_it over the it whose best is u
// The loss of a query is final once it has met all documents: a chunk of queries keeps which tokens
// were the best and leaves its share of the gradients before the next one begins, so that all
// products are formed once, and no tile outlives its worker. Whoever adds to a gradient has it for
// itself, in one order: the same bits for any number of threads.
#include "cpu/max_sim.h"

#include <algorithm>
#include <vector>

#include "cpu/statistics.h"

namespace fastcl::cpu {
namespace {

// Tokens of queries at once: their tile with a block of a document stays in L2 beside both.
constexpr int64_t kTileTokens = 128;
// Tokens of an item of work: more items for many threads, but a document is packed for each.
constexpr int64_t kItemTokens = 512;
// Memory of a chunk, and multiplications below which a second thread costs more than it saves.
constexpr int64_t kChunk = int64_t{4} << 20;
constexpr int64_t kSmall = int64_t{1} << 19;

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

template <typename T>
void LateInteraction<T>::operator()() {
  clear(x_.dq, n_ * query_.length() * x_.d);
  clear(x_.dd, document_.items() * document_.length() * x_.d);
  clear(x_.d_hard, hard_.items() * hard_.length() * x_.d);
  for (first_ = 0; first_ < n_; first_ += group_) {
    count_ = std::min(group_, n_ - first_);
    pack_queries();
    score();
    run_items(count_, workers_, [&](int64_t query, int64_t) { weigh(query); });
    const int64_t documents = x_.dd != nullptr ? document_.items() : 0;
    const int64_t hard = x_.d_hard != nullptr ? count_ * hard_per_query_ : 0;
    const int64_t queries = x_.dq != nullptr ? count_ : 0;
    run_items(documents + hard + queries, workers_, [&](int64_t item, int64_t) {
      if (item < documents) return to_document(item);
      item -= documents;
      if (item < hard) return to_hard(item / hard_per_query_, item % hard_per_query_);
      to_query(item - hard);
    });
  }
  project(query_, x_.dq);
  project(document_, x_.dd);
  project(hard_, x_.d_hard);
  const auto mean = [&](const Buffer<double>& of) {
    return sum_of(0, n_, [&](int64_t i) { return of[i]; }) / n_;
  };
  *x_.loss = mean(losses_);
  if (x_.slope != nullptr) *x_.slope = mean(slopes_);
}

// The tokens of the chunk end to end.
template <typename T>
void LateInteraction<T>::pack_queries() {
  found_.clear();
  begin_.assign(1, 0);
  for (int64_t query = 0; query < count_; ++query) {
    query_.append(first_ + query, found_);
    begin_.push_back(found_.size());
  }
  simd<T>().copy_rows({x_.dtype, found_.rows.data(), nullptr, found_.size()}, 0, x_.d, q_.data());
}

// All scores of the chunk. An item is a document and some queries, or a query and its hard ones.
template <typename T>
void LateInteraction<T>::score() {
  const int64_t some = std::max<int64_t>(1, kItemTokens / std::max<int64_t>(1, query_.length()));
  const int64_t parts = ceil_div(count_, some), shared = document_.items() * parts;
  const int64_t own = hard_per_query_ > 0 ? count_ : 0;
  run_items(shared + own, workers_, [&](int64_t item, int64_t worker) {
    Scratch& scratch = scratch_[worker];
    if (item < shared) {
      const int64_t from = item % parts * some, to = std::min(from + some, count_);
      return score(document_, item / parts, item / parts, from, to, scratch);
    }
    const int64_t query = item - shared;
    for (int64_t h = 0; h < hard_per_query_; ++h) {
      const int64_t number = (first_ + query) * hard_per_query_ + h;
      score(hard_, number, document_.items() + h, query, query + 1, scratch);
    }
  });
}

// The scores of a document, or of a hard one, for queries from .. to.
template <typename T>
void LateInteraction<T>::score(const TokenSide<T>& side, int64_t item, int64_t column, int64_t from,
                               int64_t to, Scratch& scratch) {
  Found<T>& found = scratch.found;
  found.clear();
  side.append(item, found);
  found.factors.resize(found.size() + kPanel);  // read in whole vectors
  const int64_t first = begin_[from], count = begin_[to] - first;
  int32_t* const at = this->at(column, from);
  std::fill_n(scratch.best.data(), count, -std::numeric_limits<T>::infinity());
  std::fill_n(at, count, 0);
  const int64_t width = found.size() > 0 ? equal_blocks(found.size(), kBlock, false) : 1;
  for (int64_t col = 0; col < found.size(); col += width) {
    const int64_t cols = std::min(width, found.size() - col);
    for (int64_t row = 0; row < count; row += kTileTokens) {
      const Tile<T> tile{scratch.tile.data(), std::min(kTileTokens, count - row), cols,
                         kBlock + kPadding};
      for (int64_t slice = 0; slice < slices(); ++slice) {
        if (row == 0 || slices() > 1) pack(found, col, cols, slice, scratch);
        multiply(tile, first + row, found.factors.data() + col, slice, scratch);
      }
      simd<T>().best_columns(tile, static_cast<int32_t>(col), scratch.best.data() + row, at + row);
    }
  }
  for (int64_t t = 0; side.masked() && t < count && found.size() > 0; ++t)
    at[t] = found.places[at[t]];
  for (int64_t query = from; query < to; ++query) {
    double total = tokens(query) > 0 && found.size() > 0 ? 0 : kNaN;
    for (int64_t t = begin_[query]; t < begin_[query + 1]; ++t) total += scratch.best[t - first];
    scores_[query * columns_ + column] = total;
  }
}

// Some features of some tokens of a document.
template <typename T>
void LateInteraction<T>::pack(const Found<T>& found, int64_t col, int64_t cols, int64_t slice,
                              Scratch& scratch) {
  const int64_t from = slice * depth_, depth = std::min(depth_, x_.d - from);
  const void* const* rows = found.rows.data() + col;
  if (pairs_ != nullptr) {
    return simd<T>().pack_pair_columns(rows, cols, from / 2, depth / 2, scratch.b.data());
  }
  simd<T>().pack_columns({x_.dtype, rows, nullptr, cols}, from, depth, scratch.panels.data());
}

// The tile (+)= products of tokens from `row` of the chunk with what was packed.
template <typename T>
void LateInteraction<T>::multiply(const Tile<T>& tile, int64_t row, const T* col_factors,
                                  int64_t slice, Scratch& scratch) {
  const int64_t from = slice * depth_, depth = std::min(depth_, x_.d - from);
  const T* const factors = x_.normalize ? found_.factors.data() + row : nullptr;
  if (!x_.normalize) col_factors = nullptr;
  if constexpr (sizeof(T) == 4) {
    if (pairs_ != nullptr) {
      pack_squares(found_.rows.data() + row, tile.rows, from / 2, depth / 2, scratch.a.data());
      return pairs_({scratch.a.data(), tile.rows, scratch.b.data(), depth / 2, tile.cols, factors,
                     col_factors, tile.s, tile.stride, slice > 0});
    }
  }
  simd<T>().product(q_.data() + row * x_.d + from, x_.d, 1, tile.rows, scratch.panels.data(), depth,
                    tile.cols, factors, col_factors, tile.s, tile.stride, slice > 0, true);
}

// Loss of a query of the chunk, and the gradient of its scores, which sum relative to the own one:
// p - 1 of that is e^-loss - 1.
template <typename T>
void LateInteraction<T>::weigh(int64_t query) {
  const int64_t i = first_ + query;
  const double* const scores = scores_.data() + query * columns_;
  T* const weights = weights_.data() + query * columns_;
  const double own = scores[i];
  const auto away = [&](int64_t j) { return x_.scale * (scores[j] - own); };
  double most = -kInfinity;
  for (int64_t j = 0; j < columns_; ++j) {
    if (j != i) most = std::max(most, away(j));
  }
  const double shift = most == -kInfinity ? 0 : most;
  const double sum =
      sum_of(0, columns_, [&](int64_t j) { return j == i ? 0 : std::exp(away(j) - shift); });
  const double loss = own == kInfinity ? kNaN : softplus(shift + std::log(sum));
  const double factor = x_.scale / n_;
  double slope = 0;
  for (int64_t j = 0; j < columns_; ++j) {
    const double p = j == i ? std::expm1(-loss) : std::exp(away(j) - loss);
    weights[j] = static_cast<T>(factor * p);
    if (p != 0) slope += p * away(j);
  }
  losses_[i] = loss;
  slopes_[i] = slope;
}

template <typename T>
void LateInteraction<T>::to_query(int64_t query) {
  T* const to = x_.dq + (first_ + query) * query_.length() * x_.d;
  const int32_t* const places = query_.masked() ? found_.places.data() + begin_[query] : nullptr;
  for (int64_t column = 0; column < columns_; ++column) {
    const T weight = weights_[query * columns_ + column];
    if (weight == 0) continue;
    const int64_t hard = column - document_.items();
    const Lines<T> lines =
        hard < 0 ? document_.lines(column) : hard_.lines((first_ + query) * hard_per_query_ + hard);
    simd<T>().add_rows(lines, at(column, query), tokens(query), x_.d, weight, to, places);
  }
}

// What a query of the chunk has for the document of a column.
template <typename T>
void LateInteraction<T>::to_column(int64_t query, int64_t column, T* to) {
  const T weight = weights_[query * columns_ + column];
  if (weight == 0) return;
  const T* const factors = x_.normalize ? found_.factors.data() + begin_[query] : nullptr;
  const Lines<T> lines{kNative, q_.data() + begin_[query] * x_.d, factors};
  simd<T>().add_rows(lines, nullptr, tokens(query), x_.d, weight, to, at(column, query));
}

template <typename T>
void LateInteraction<T>::to_document(int64_t document) {
  T* const to = x_.dd + document * document_.length() * x_.d;
  for (int64_t query = 0; query < count_; ++query) to_column(query, document, to);
}

template <typename T>
void LateInteraction<T>::to_hard(int64_t query, int64_t number) {
  const int64_t item = (first_ + query) * hard_per_query_ + number;
  to_column(query, document_.items() + number, x_.d_hard + item * hard_.length() * x_.d);
}

// Gradients of divided tokens to those of the tokens as they came.
template <typename T>
void LateInteraction<T>::project(const TokenSide<T>& side, T* grad) const {
  if (grad == nullptr || !x_.normalize) return;
  run_items(side.items(), workers_,
            [&](int64_t item, int64_t) { side.project(item, grad + item * side.length() * x_.d); });
}

}  // namespace

template <typename T>
void max_sim_mean(const MaxSim<T>& x) {
  LateInteraction<T> all(x);
  all();
}

template void max_sim_mean(const MaxSim<float>&);
template void max_sim_mean(const MaxSim<double>&);

}  // namespace fastcl::cpu
