// The only header that includes torch: PyTorch's stable ABI, narrowed to what the operators use.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "dtype.h"
#include "kernels.h"

#ifdef FASTCL_CUDA
// Weak: a CPU-only torch has no such symbol, and the library must load beside it.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream)
    __attribute__((weak));
#endif

namespace fastcl {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// STD_TORCH_CHECK would name the file that was compiled.
template <typename... Parts>
void check(bool holds, const Parts&... message) {
  if (holds) return;
  std::ostringstream text;
  (text << ... << message);
  throw std::runtime_error(text.str());
}

// Before sizes are asked for: torch's own error about a dimension that is not there names a file.
inline void check_matrix(const Tensor& x, const char* name) {
  check(x.dim() == 2, "fastcl: ", name, " must have 2 dimensions, got ", x.dim());
}

inline void check_device(const Tensor& x, const Tensor& like, const char* name) {
  check(x.get_device_index() == like.get_device_index() && x.is_cpu() == like.is_cpu(),
        "fastcl: ", name, " must be on the device of the others");
}

// Raw pointers below assume rows end to end; an expanded gradient would be read out of bounds.
inline const Tensor& checked(const Tensor& x, const char* name) {
  check(x.is_contiguous(), "fastcl: ", name, " must be contiguous");
  return x;
}

template <typename T>
const T* data(const Tensor& x, const char* name) {
  return static_cast<const T*>(checked(x, name).data_ptr());
}

template <typename T>
const T* data(const OptionalTensor& x, const char* name) {
  return x.has_value() ? data<T>(*x, name) : nullptr;
}

template <typename T>
T* mutable_data(Tensor& x, const char* name) {
  return static_cast<T*>(checked(x, name).data_ptr());
}

inline Dtype dtype(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Half:
      return Dtype::kFloat16;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    case ScalarType::Float:
      return Dtype::kFloat32;
    case ScalarType::Double:
      return Dtype::kFloat64;
    default:
      return Dtype::kOther;
  }
}

#ifdef FASTCL_CUDA
// The stream PyTorch works on; make the tensor's device current first.
inline void* current_stream(const Tensor& x) {
  void* stream = nullptr;
  // The macro that checks a code has another name in torch 2.11.
  check(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
        "fastcl: no current CUDA stream");
  return stream;
}
#endif

inline void check_vector(const Tensor& x, int64_t size, ScalarType type, const char* name) {
  check(x.scalar_type() == type, "fastcl: ", name, " must have ",
        type == ScalarType::Long ? "dtype int64" : "the dtype that the rows accumulate in");
  check(x.numel() == size, "fastcl: ", name, " must hold ", size, " elements, got ", x.numel());
}

// A copy of a short vector of any floating-point dtype in T; empty for no tensor.
template <typename T>
std::vector<T> values(const OptionalTensor& x, int64_t size, const char* name) {
  if (!x.has_value()) return {};
  check(x->numel() == size, "fastcl: ", name, " must hold ", size, " elements, got ", x->numel());
  const auto read = [&](auto zero) {
    const auto* from = data<decltype(zero)>(*x, name);
    std::vector<T> to(size);
    for (int64_t i = 0; i < size; ++i) to[i] = static_cast<T>(from[i]);
    return to;
  };
  switch (x->scalar_type()) {
    case ScalarType::Float:
      return read(float{});
    case ScalarType::Double:
      return read(double{});
    case ScalarType::Half:
      return read(c10::Half{});
    case ScalarType::BFloat16:
      return read(c10::BFloat16{});
    default:
      check(false, "fastcl: ", name, " must be floating point");
      return {};
  }
}

inline Dtype rows_dtype(const Tensor& x) {
  check(dtype(x) != Dtype::kOther, "fastcl: rows must be floating point");
  return dtype(x);
}

// Runs f with the type that rows of q are accumulated in.
template <typename F>
void with_accumulator(const Tensor& q, const F& f) {
  if (q.scalar_type() == ScalarType::Double) return f(double{});
  f(float{});
}

inline ScalarType accumulator(const Tensor& q) {
  return q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// A new tensor beside another. torch's own new_empty goes through the dispatcher, once for each of
// the outputs: small problems feel it.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes,
                    std::optional<ScalarType> type = std::nullopt) {
  constexpr int kMost = 8;
  check(sizes.size() <= kMost, "fastcl: too many dimensions");
  int64_t strides[kMost], stride = 1;
  for (size_t i = sizes.size(); i-- > 0; stride *= std::max<int64_t>(1, sizes.begin()[i]))
    strides[i] = stride;
  using torch::stable::detail::from, torch::stable::detail::to;
  const auto dtype = to<int32_t>(from(type.value_or(like.scalar_type())));
  int32_t device = 0;
  AtenTensorHandle found = nullptr;
  check(aoti_torch_get_device_type(like.get(), &device) == AOTI_TORCH_SUCCESS &&
            aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(), strides,
                                     dtype, device, like.get_device_index(),
                                     &found) == AOTI_TORCH_SUCCESS,
        "fastcl: no memory for an output");
  return Tensor(found);
}

}  // namespace fastcl
