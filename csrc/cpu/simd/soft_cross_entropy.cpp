// Rows of soft_cross_entropy, compiled once per instruction set: with t = scale * s, w = sum_j q_j,
//     loss = w log(sum_j exp(t_j - max t)) - sum_j q_j (t_j - max t),   dt_j = w p_j - q_j
// Scores and targets are read from memory once, the gradient written while the row is in cache.
// Both sums of the loss have terms of one sign: nothing cancels, however large the logits.
#include "../../soft_cross_entropy.h"

#include "cpu/simd/row.h"

namespace fastcl {
namespace FASTCL_SIMD {
namespace {

constexpr int64_t kSums = 16;

// Sums over j < m of q_j and of q_j (t_j - high), sixteen of each side by side.
template <typename T, typename Q>
void weigh(const Q* target, const T* row, int64_t m, T high, T* weight, T* away) {
  T weights[kSums] = {}, aways[kSums] = {};
  const auto add = [&](int64_t j, int64_t l) {
    const T q = static_cast<T>(widen(target[j + l]));
    weights[l] += q;
    aways[l] += q * (row[j + l] - high);
  };
  int64_t j = 0;
  for (; j + kSums <= m; j += kSums) {
    for (int64_t l = 0; l < kSums; ++l) add(j, l);
  }
  for (int64_t l = 0; j + l < m; ++l) add(j, l);
  *weight = *away = 0;
  for (int64_t l = 0; l < kSums; ++l) {
    *weight += weights[l];
    *away += aways[l];
  }
}

template <typename T, typename E, typename Q>
void rows(const SoftCrossEntropy& x, int64_t begin, int64_t end, T* row) {
  const T factor = static_cast<T>(x.factor);
  for (int64_t i = begin; i < end; ++i) {
    const Q* target = static_cast<const Q*>(x.target) + i * x.m;
    logits<T, E>(static_cast<const E*>(x.scores) + i * x.m, nullptr, x.m, static_cast<T>(x.scale),
                 row);
    const T high = largest(row, x.m);
    T weight, away;
    weigh(target, row, x.m, high, &weight, &away);
    const T total = exponentials(row, x.m, high);
    x.losses[i] = weight * __builtin_log(static_cast<double>(total)) - away;
    if (x.grad == nullptr) continue;
    E* grad = static_cast<E*>(x.grad) + i * x.m;
    const T share = weight / total;
    for (int64_t j = 0; j < x.m; ++j) {
      grad[j] = narrow<E>((row[j] * share - static_cast<T>(widen(target[j]))) * factor);
    }
  }
}

template <typename T, typename E>
void rows_of(const SoftCrossEntropy& x, int64_t begin, int64_t end, void* row) {
  if (x.target_dtype == x.dtype) return rows<T, E, E>(x, begin, end, static_cast<T*>(row));
  rows<T, E, T>(x, begin, end, static_cast<T*>(row));
}

}  // namespace

void soft_cross_entropy_rows(const SoftCrossEntropy& x, int64_t begin, int64_t end, void* row);

void soft_cross_entropy_rows(const SoftCrossEntropy& x, int64_t begin, int64_t end, void* row) {
  switch (x.dtype) {
    case Dtype::kFloat16:
      return rows_of<float, Half>(x, begin, end, row);
    case Dtype::kBFloat16:
      return rows_of<float, BFloat16>(x, begin, end, row);
    case Dtype::kFloat64:
      return rows_of<double, double>(x, begin, end, row);
    default:
      return rows_of<float, float>(x, begin, end, row);
  }
}

}  // namespace FASTCL_SIMD
}  // namespace fastcl
