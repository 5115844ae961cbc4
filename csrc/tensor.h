// The only header that includes torch: PyTorch's stable ABI, narrowed to what the operators use.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "dtype.h"

#ifdef FASTCL_CUDA
// Weak: a CPU-only torch has no such symbol, and the library must load beside it.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream)
    __attribute__((weak));
#endif

namespace fastcl {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Raw pointers below assume rows end to end; an expanded gradient would be read out of bounds.
inline const Tensor& checked(const Tensor& x, const char* name) {
  STD_TORCH_CHECK(x.is_contiguous(), "fastcl: ", name, " must be contiguous");
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
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return stream;
}
#endif

}  // namespace fastcl
