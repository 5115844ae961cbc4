// Rows of bank_update_, compiled once per instruction set: two reads and one write of memory.
#include "../../bank.h"

#include "cpu/float16.h"

namespace fastcl {
namespace FASTCL_SIMD {
namespace {

constexpr int64_t kSums = 16;

template <typename T>
T length_of(const T* row, int64_t d) {
  T sums[kSums] = {};
  int64_t j = 0;
  for (; j + kSums <= d; j += kSums) {
    for (int64_t l = 0; l < kSums; ++l) sums[l] += row[j + l] * row[j + l];
  }
  for (int64_t l = 0; j + l < d; ++l) sums[l] += row[j + l] * row[j + l];
  for (int64_t half = kSums / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) sums[l] += sums[l + half];
  }
  return sizeof(T) == 4 ? __builtin_sqrtf(sums[0]) : __builtin_sqrt(sums[0]);
}

template <typename T, typename E, typename X>
void update(E* bank, const X* x, int64_t d, double momentum, T* row) {
  const T keep = static_cast<T>(momentum), take = static_cast<T>(1 - momentum);
  for (int64_t j = 0; j < d; ++j) {
    row[j] = keep * static_cast<T>(widen(bank[j])) + take * static_cast<T>(widen(x[j]));
  }
  T length = length_of(row, d);
  if (length < T(1e-12)) length = T(1e-12);
  for (int64_t j = 0; j < d; ++j) bank[j] = narrow<E>(row[j] / length);
}

template <typename T, typename E, typename X>
void rows(const BankUpdate& p, const int64_t* chosen, int64_t begin, int64_t end, T* scratch) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t at = chosen[i];
    update<T>(static_cast<E*>(p.bank) + p.index[at] * p.d, static_cast<const X*>(p.x) + at * p.d,
              p.d, p.momentum, scratch);
  }
}

template <typename T, typename E>
void rows_of(const BankUpdate& p, const int64_t* chosen, int64_t begin, int64_t end, void* space) {
  T* scratch = static_cast<T*>(space);
  switch (p.x_dtype) {
    case Dtype::kFloat16:
      return rows<T, E, Half>(p, chosen, begin, end, scratch);
    case Dtype::kBFloat16:
      return rows<T, E, BFloat16>(p, chosen, begin, end, scratch);
    case Dtype::kFloat64:
      return rows<T, E, double>(p, chosen, begin, end, scratch);
    default:
      return rows<T, E, float>(p, chosen, begin, end, scratch);
  }
}

}  // namespace

void bank_rows(const BankUpdate& p, const int64_t* chosen, int64_t begin, int64_t end,
               double* scratch);

void bank_rows(const BankUpdate& p, const int64_t* chosen, int64_t begin, int64_t end,
               double* scratch) {
  switch (p.bank_dtype) {
    case Dtype::kFloat16:
      return rows_of<float, Half>(p, chosen, begin, end, scratch);
    case Dtype::kBFloat16:
      return rows_of<float, BFloat16>(p, chosen, begin, end, scratch);
    case Dtype::kFloat64:
      return rows_of<double, double>(p, chosen, begin, end, scratch);
    default:
      return rows_of<float, float>(p, chosen, begin, end, scratch);
  }
}

}  // namespace FASTCL_SIMD
}  // namespace fastcl
