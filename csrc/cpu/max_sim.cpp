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
  double loss = own == kInfinity ? kNaN : softplus(shift + std::log(sum));
  if (columns_ == 1) loss = own - own;  // 0, or NaN
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

template <typename T>
void max_sim_mean(const MaxSim<T>& x) {
  LateInteraction<T> all(x);
  all();
}

template void max_sim_mean(const MaxSim<float>&);
template void max_sim_mean(const MaxSim<double>&);

}  // namespace fastcl::cpu
