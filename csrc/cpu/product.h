// Matrix products of tiles by the BLAS that torch carries, and its thread pool.
#pragma once

#include <cstdint>
#include <functional>

namespace fastcl::cpu {

// A strided matrix that is owned elsewhere.
template <typename T>
struct View {
  T* data;
  int64_t rows, cols;
  int64_t row_stride, col_stride;

  View transposed() const { return {data, cols, rows, col_stride, row_stride}; }
};

// out = a b, or out += a b. One thread where called from `parallel`.
template <typename T>
void product(const View<const T>& a,  // [n, d]
             const View<const T>& b,  // [d, m]
             const View<T>& out,      // [n, m]
             bool accumulate);

int thread_count();

// work(worker) for every worker in [0, workers), at the same time where there are threads.
void parallel(int64_t workers, const std::function<void(int64_t)>& work);

}  // namespace fastcl::cpu
