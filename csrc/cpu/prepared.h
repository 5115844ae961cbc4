// What comes before and after the passes of a contrast: the lengths that rows are divided by, and
// the one positive of a row that is no column.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/statistics.h"

namespace fastcl::cpu {

// Rows of a matrix that are held at once, widened.
constexpr int64_t kSome = 16;

template <typename T>
class Prepared {
 public:
  explicit Prepared(const Problem& x)
      : x_{x, nullptr, nullptr, nullptr},
        q_lengths_(lengths(x.normalize_q, x.q, x.n)),
        k_lengths_(lengths(x.normalize_k && !x.symmetric, x.k, x.m)),
        own_lengths_(lengths(x.normalize_own && x.has_own(), x.own, x.n)) {
    if (x.normalize_q) x_.q_lengths = q_lengths_.data();
    if (x.normalize_k) x_.k_lengths = x.symmetric ? x_.q_lengths : k_lengths_.data();
    if (!x.has_own()) return;
    extra_.resize(x.n);
    beside([&](int64_t i, const T* q, const T* own) {
      extra_[i] = static_cast<T>(sum_of(0, x_.d, [&](int64_t c) { return double{q[c]} * own[c]; }));
    });
    x_.extra = extra_.data();
  }

  const Divided<T>& problem() const { return x_; }

  // Gradients of rows as they went into the products become those of the rows as they came, the
  // positive that is no column included; pull [n] is called where there is one.
  template <typename F>
  void finish(const F& pull, const Gradients<T>& to) {
    if (x_.has_own() && (to.dq != nullptr || to.d_own != nullptr)) {
      beside([&](int64_t i, const T* q, const T* own) {
        const T weight = static_cast<T>(x_.scale * pull(i));
        for (int64_t c = 0; to.dq != nullptr && c < x_.d; ++c) {
          to.dq[i * x_.d + c] += weight * own[c];
        }
        for (int64_t c = 0; to.d_own != nullptr && c < x_.d; ++c) {
          to.d_own[i * x_.d + c] = weight * q[c];
        }
      });
    }
    double slope = 0, own_slope = 0;
    if (to.slope != nullptr && x_.has_own() && x_.symmetric) {
      own_slope = sum_of(0, x_.n, [&](int64_t i) { return x_.scale * pull(i) * extra_[i]; });
    }
    if (to.dq != nullptr && x_.normalize_q) {
      slope = project(x_.dtype, x_.q, q_lengths_.data(), x_.d, to.dq);
    } else if (to.slope != nullptr) {
      slope = product_with(to.dq);
    }
    if (to.dk != nullptr && x_.normalize_k) {
      project(x_.dtype, x_.k, k_lengths_.data(), x_.d, to.dk);
    }
    if (to.d_own != nullptr && x_.normalize_own) {
      project(x_.dtype, x_.own, own_lengths_.data(), x_.d, to.d_own);
    }
    // Each logit is linear in the scale; a symmetric one is counted twice, that of own is not.
    if (to.slope != nullptr) *to.slope = x_.symmetric ? (slope + own_slope) / 2 : slope;
  }

 private:
  std::vector<T> lengths(bool wanted, const Rows& rows, int64_t size) const {
    std::vector<T> found(wanted ? size : 0);
    if (wanted) row_lengths<T>(x_.dtype, rows, x_.d, found.data());
    return found;
  }

  // f(i, row i of q, row i of own), both of length d, as they go into the products.
  template <typename F>
  void beside(const F& f) const {
    const RowTable<T> q(x_.dtype, x_.q, x_.q_lengths, x_.n, x_.d, x_.normalize_q);
    const RowTable<T> own(x_.dtype, x_.own, x_.normalize_own ? own_lengths_.data() : nullptr, x_.n,
                          x_.d, x_.normalize_own);
    const int64_t items = ceil_div(x_.n, kSome), workers = std::min<int64_t>(thread_count(), items);
    const Buffer<T> memory(workers * 2 * kSome * x_.d);
    run_items(items, workers, [&](int64_t item, int64_t worker) {
      T* left = memory.data() + worker * 2 * kSome * x_.d;
      T* right = left + kSome * x_.d;
      const int64_t first = item * kSome, size = std::min(kSome, x_.n - first);
      simd<T>().copy_rows(q.block(first, size), 0, x_.d, left);
      simd<T>().copy_rows(own.block(first, size), 0, x_.d, right);
      for (int64_t i = 0; i < size; ++i) f(first + i, left + i * x_.d, right + i * x_.d);
    });
  }

  // The sum of <q_i, dq_i> of rows that were not divided.
  double product_with(const T* dq) const {
    const RowTable<T> q(x_.dtype, x_.q, nullptr, x_.n, x_.d, false);
    const Buffer<T> row(x_.d);
    return sum_of(0, x_.n, [&](int64_t i) {
      simd<T>().copy_rows(q.block(i, 1), 0, x_.d, row.data());
      return sum_of(0, x_.d, [&](int64_t c) { return double{row[c]} * dq[i * x_.d + c]; });
    });
  }

  Divided<T> x_;
  std::vector<T> q_lengths_, k_lengths_, own_lengths_, extra_;
};

}  // namespace fastcl::cpu
