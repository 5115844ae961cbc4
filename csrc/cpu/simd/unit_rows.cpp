// Rows divided by their length, and back: y = x / |x|, dx = (g - y <y, g>) / |x|. One read of each
// input, one write; sixteen sums side by side, which is what vectors want.
#include "cpu/float16.h"
#include "cpu/simd/passes.h"

namespace fastcl::FASTCL_SIMD {
namespace {

constexpr int64_t kSums = 16;

// sum_j f(j), in an order that does not depend on the instruction set.
template <typename T, typename F>
T total(int64_t d, const F& f) {
  T sums[kSums] = {};
  int64_t j = 0;
  for (; j + kSums <= d; j += kSums) {
    for (int64_t l = 0; l < kSums; ++l) sums[l] += f(j + l);
  }
  for (int64_t l = 0; j + l < d; ++l) sums[l] += f(j + l);
  T sum = 0;
  for (int64_t l = 0; l < kSums; ++l) sum += sums[l];
  return sum;
}

template <typename E, typename T>
void forward(const E* x, int64_t rows, int64_t d, E* y, T* lengths) {
  for (int64_t i = 0; i < rows; ++i, x += d, y += d) {
    const T square =
        total<T>(d, [&](int64_t j) { return fastcl::widen(x[j]) * fastcl::widen(x[j]); });
    lengths[i] = sizeof(T) == 4 ? __builtin_sqrtf(square) : __builtin_sqrt(square);
    const T length = lengths[i] < T(cpu::kShortest) ? T(cpu::kShortest) : lengths[i];
    for (int64_t j = 0; j < d; ++j) y[j] = narrow<E>(fastcl::widen(x[j]) / length);
  }
}

template <typename E, typename T>
void backward(const E* grad, const E* x, const T* lengths, int64_t rows, int64_t d, E* dx) {
  for (int64_t i = 0; i < rows; ++i, grad += d, x += d, dx += d) {
    // A row without direction gets no gradient; NaN passes on.
    const T inverse = lengths[i] < T(cpu::kShortest) ? T(0) : 1 / lengths[i];
    const T along = total<T>(
        d, [&](int64_t j) { return fastcl::widen(grad[j]) * (fastcl::widen(x[j]) * inverse); });
    for (int64_t j = 0; j < d; ++j) {
      dx[j] = narrow<E>((fastcl::widen(grad[j]) - fastcl::widen(x[j]) * inverse * along) * inverse);
    }
  }
}

}  // namespace

template <typename T>
void unit_rows(Element element, const void* x, int64_t rows, int64_t d, void* y, T* lengths) {
  const auto run = [&](auto zero) {
    using E = decltype(zero);
    forward(static_cast<const E*>(x), rows, d, static_cast<E*>(y), lengths);
  };
  if (element == Element::kHalf) return run(Half{});
  if (element == Element::kBFloat16) return run(BFloat16{});
  run(T{});
}

template <typename T>
void unit_rows_gradient(Element element, const void* grad, const void* x, const T* lengths,
                        int64_t rows, int64_t d, void* dx) {
  const auto run = [&](auto zero) {
    using E = decltype(zero);
    backward(static_cast<const E*>(grad), static_cast<const E*>(x), lengths, rows, d,
             static_cast<E*>(dx));
  };
  if (element == Element::kHalf) return run(Half{});
  if (element == Element::kBFloat16) return run(BFloat16{});
  run(T{});
}

template void unit_rows(Element, const void*, int64_t, int64_t, void*, float*);
template void unit_rows(Element, const void*, int64_t, int64_t, void*, double*);
template void unit_rows_gradient(Element, const void*, const void*, const float*, int64_t, int64_t,
                                 void*);
template void unit_rows_gradient(Element, const void*, const void*, const double*, int64_t, int64_t,
                                 void*);

}  // namespace fastcl::FASTCL_SIMD
