// unit_rows on the CPU: rows are independent, so threads take equal parts of them.
#include <algorithm>
#include <vector>

#include "cpu/simd.h"
#include "cpu/threads.h"

namespace fastcl::cpu {
namespace {

// Elements below which a second thread costs more to wake than it saves.
constexpr int64_t kPart = 1 << 15;

// f(first row, number of rows) for parts of n rows of d elements.
template <typename F>
void in_parts(int64_t n, int64_t d, const F& f) {
  const int64_t parts = std::clamp<int64_t>(n * d / kPart, 1, thread_count());
  parallel(parts, [&](int64_t part) {
    const int64_t first = n * part / parts;
    f(first, n * (part + 1) / parts - first);
  });
}

}  // namespace

template <typename T>
void unit_rows(Dtype dtype, const void* x, int64_t n, int64_t d, void* y, T* lengths) {
  const int64_t bytes = size_of(dtype) * d;
  in_parts(n, d, [&](int64_t i, int64_t rows) {
    simd<T>().unit_rows(dtype, static_cast<const char*>(x) + i * bytes, rows, d,
                        static_cast<char*>(y) + i * bytes, lengths + i);
  });
}

template <typename T>
void unit_rows_gradient(Dtype dtype, const void* grad, const void* x, const T* lengths, int64_t n,
                        int64_t d, void* dx) {
  const int64_t bytes = size_of(dtype) * d;
  in_parts(n, d, [&](int64_t i, int64_t rows) {
    simd<T>().unit_rows_gradient(dtype, static_cast<const char*>(grad) + i * bytes,
                                 static_cast<const char*>(x) + i * bytes, lengths + i, rows, d,
                                 static_cast<char*>(dx) + i * bytes);
  });
}

// f(rows as a block, first row) for parts of the rows.
template <typename T, typename F>
void in_blocks(Dtype dtype, const Rows& x, int64_t d, const F& f) {
  int64_t first = 0;
  for (const Rows::Part& part : x.parts) {
    in_parts(part.size, d, [&](int64_t i, int64_t rows) {
      std::vector<const void*> begin(rows);
      for (int64_t l = 0; l < rows; ++l) {
        begin[l] = static_cast<const char*>(part.data) + (i + l) * d * size_of(dtype);
      }
      f(Block<T>{dtype, begin.data(), nullptr, rows}, first + i);
    });
    first += part.size;
  }
}

template <typename T>
void row_lengths(Dtype dtype, const Rows& x, int64_t d, T* lengths) {
  in_blocks<T>(dtype, x, d, [&](const Block<T>& block, int64_t first) {
    simd<T>().row_lengths(block, d, lengths + first);
  });
}

template <typename T>
double project(Dtype dtype, const Rows& x, const T* lengths, int64_t d, T* grad) {
  int64_t n = 0;
  for (const Rows::Part& part : x.parts) n += part.size;
  std::vector<double> dots(n);
  in_blocks<T>(dtype, x, d, [&](const Block<T>& block, int64_t first) {
    simd<T>().project(block, lengths + first, d, grad + first * d, dots.data() + first);
  });
  double sum = 0;
  for (const double dot : dots) sum += dot;
  return sum;
}

template double project(Dtype, const Rows&, const float*, int64_t, float*);
template double project(Dtype, const Rows&, const double*, int64_t, double*);
template void row_lengths(Dtype, const Rows&, int64_t, float*);
template void row_lengths(Dtype, const Rows&, int64_t, double*);
template void unit_rows(Dtype, const void*, int64_t, int64_t, void*, float*);
template void unit_rows(Dtype, const void*, int64_t, int64_t, void*, double*);
template void unit_rows_gradient(Dtype, const void*, const void*, const float*, int64_t, int64_t,
                                 void*);
template void unit_rows_gradient(Dtype, const void*, const void*, const double*, int64_t, int64_t,
                                 void*);

}  // namespace fastcl::cpu
