// The only header that includes torch: PyTorch's stable ABI, narrowed to what the operators use.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

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

}  // namespace fastcl
