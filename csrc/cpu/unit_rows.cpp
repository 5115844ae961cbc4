// unit_rows on the CPU: rows are independent, so threads take equal parts of them.
#include <algorithm>

#include "cpu/product.h"
#include "cpu/simd.h"

namespace fastcl::cpu {
namespace {

// Elements below which a second thread costs more to wake than it saves.
constexpr int64_t kPart = 1 << 15;

int64_t size_of(Element element) {
  if (element == Element::kDouble) return 8;
  return element == Element::kFloat ? 4 : 2;
}

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
void unit_rows(Element element, const void* x, int64_t n, int64_t d, void* y, T* lengths) {
  const int64_t bytes = size_of(element) * d;
  in_parts(n, d, [&](int64_t i, int64_t rows) {
    simd<T>().unit_rows(element, static_cast<const char*>(x) + i * bytes, rows, d,
                        static_cast<char*>(y) + i * bytes, lengths + i);
  });
}

template <typename T>
void unit_rows_gradient(Element element, const void* grad, const void* x, const T* lengths,
                        int64_t n, int64_t d, void* dx) {
  const int64_t bytes = size_of(element) * d;
  in_parts(n, d, [&](int64_t i, int64_t rows) {
    simd<T>().unit_rows_gradient(element, static_cast<const char*>(grad) + i * bytes,
                                 static_cast<const char*>(x) + i * bytes, lengths + i, rows, d,
                                 static_cast<char*>(dx) + i * bytes);
  });
}

template void unit_rows(Element, const void*, int64_t, int64_t, void*, float*);
template void unit_rows(Element, const void*, int64_t, int64_t, void*, double*);
template void unit_rows_gradient(Element, const void*, const void*, const float*, int64_t, int64_t,
                                 void*);
template void unit_rows_gradient(Element, const void*, const void*, const double*, int64_t, int64_t,
                                 void*);

}  // namespace fastcl::cpu
