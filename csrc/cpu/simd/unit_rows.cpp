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
T length_of(const E* x, int64_t d, T) {
  const T square =
      total<T>(d, [&](int64_t j) { return fastcl::widen(x[j]) * fastcl::widen(x[j]); });
  return sizeof(T) == 4 ? __builtin_sqrtf(square) : __builtin_sqrt(square);
}

template <typename E, typename T>
void forward(const E* x, int64_t rows, int64_t d, E* y, T* lengths) {
  for (int64_t i = 0; i < rows; ++i, x += d, y += d) {
    lengths[i] = length_of(x, d, T{});
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

template <typename E, typename T>
void project_rows(const E*, const Block<T>& x, const T* lengths, int64_t d, T* grad, double* dots) {
  for (int64_t i = 0; i < x.size; ++i, grad += d) {
    const E* row = static_cast<const E*>(x.rows[i]);
    const T inverse = lengths[i] < T(cpu::kShortest) ? T(0) : 1 / lengths[i];
    const T along =
        total<T>(d, [&](int64_t j) { return grad[j] * (fastcl::widen(row[j]) * inverse); });
    for (int64_t j = 0; j < d; ++j) {
      grad[j] = (grad[j] - fastcl::widen(row[j]) * inverse * along) * inverse;
    }
    dots[i] = along;
  }
}

// f(null pointer to the type of the elements).
template <typename T, typename F>
void with_dtype(Dtype dtype, const F& f) {
  if (dtype == Dtype::kFloat16) return f(static_cast<const Half*>(nullptr));
  if (dtype == Dtype::kBFloat16) return f(static_cast<const BFloat16*>(nullptr));
  f(static_cast<const T*>(nullptr));
}

}  // namespace

template <typename T>
void unit_rows(Dtype dtype, const void* x, int64_t rows, int64_t d, void* y, T* lengths) {
  with_dtype<T>(dtype, [&]<typename E>(const E*) {
    forward(static_cast<const E*>(x), rows, d, static_cast<E*>(y), lengths);
  });
}

template <typename T>
void unit_rows_gradient(Dtype dtype, const void* grad, const void* x, const T* lengths,
                        int64_t rows, int64_t d, void* dx) {
  with_dtype<T>(dtype, [&]<typename E>(const E*) {
    backward(static_cast<const E*>(grad), static_cast<const E*>(x), lengths, rows, d,
             static_cast<E*>(dx));
  });
}

template <typename T>
void row_lengths(const Block<T>& x, int64_t d, T* lengths) {
  with_dtype<T>(x.dtype, [&]<typename E>(const E*) {
    for (int64_t i = 0; i < x.size; ++i) {
      lengths[i] = length_of(static_cast<const E*>(x.rows[i]), d, T{});
    }
  });
}

template <typename T>
void project(const Block<T>& x, const T* lengths, int64_t d, T* grad, double* dots) {
  with_dtype<T>(x.dtype, [&](auto* none) { project_rows(none, x, lengths, d, grad, dots); });
}

template void row_lengths(const Block<float>&, int64_t, float*);
template void row_lengths(const Block<double>&, int64_t, double*);
template void project(const Block<float>&, const float*, int64_t, float*, double*);
template void project(const Block<double>&, const double*, int64_t, double*, double*);
template void unit_rows(Dtype, const void*, int64_t, int64_t, void*, float*);
template void unit_rows(Dtype, const void*, int64_t, int64_t, void*, double*);
template void unit_rows_gradient(Dtype, const void*, const void*, const float*, int64_t, int64_t,
                                 void*);
template void unit_rows_gradient(Dtype, const void*, const void*, const double*, int64_t, int64_t,
                                 void*);

}  // namespace fastcl::FASTCL_SIMD
