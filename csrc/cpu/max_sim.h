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

}  // namespace fastcl::cpu
