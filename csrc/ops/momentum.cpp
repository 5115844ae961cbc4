// momentum_update_: tensors to pointers. Schema, fake kernel and fallback: fastcl/_library.py.
#include "../momentum.h"

#include <algorithm>

#include "../tensor.h"

namespace fastcl {
namespace {

// One stretch of memory, in whatever order of dimensions (channels_last): elements can be taken as
// they lie where both tensors have the strides.
bool dense(const Tensor& x) {
  int64_t last = 0;
  for (int64_t i = 0; i < x.dim(); ++i) last += (x.size(i) - 1) * x.stride(i);
  return last + 1 == x.numel();
}

void check_layout(const Tensor& t, const Tensor& o) {
  check(t.dim() == o.dim(), "fastcl: target and online must have the same shapes");
  bool same = true;
  for (int64_t i = 0; i < t.dim(); ++i) {
    check(t.size(i) == o.size(i), "fastcl: target and online must have the same shapes");
    same = same && t.stride(i) == o.stride(i);
  }
  check((t.is_contiguous() && o.is_contiguous()) || (same && dense(t)),
        "fastcl: target and online must be dense in the same order of dimensions");
}

MomentumPair pair_of(const Tensor& t, const Tensor& o) {
  check_device(o, t, "online");
  check_layout(t, o);
  MomentumPair pair{t.data_ptr(), o.data_ptr(), t.numel(), dtype(t), dtype(o)};
  if (pair.target_dtype == Dtype::kOther || pair.online_dtype == Dtype::kOther) {
    check(t.scalar_type() == o.scalar_type(),
          "fastcl: integer tensors must have one dtype in target and online");
    pair.count *= static_cast<int64_t>(t.element_size());
  }
  return pair;
}

MomentumUpdate update_of(const std::vector<Tensor>& target, const std::vector<Tensor>& online,
                         double momentum, const OptionalTensor& tensor, OptionalTensor& seed) {
  check(target.size() == online.size(), "fastcl: target and online must have the same length");
  MomentumUpdate update{{}, momentum, nullptr, Dtype::kFloat64, nullptr};
  update.pairs.reserve(target.size());
  for (size_t i = 0; i < target.size(); ++i) {
    check_device(target[i], target[0], "target");
    update.pairs.push_back(pair_of(target[i], online[i]));
  }
  if (tensor.has_value()) {
    check(tensor->numel() == 1 && dtype(*tensor) != Dtype::kOther &&
              tensor->get_device_index() == target[0].get_device_index(),
          "fastcl: momentum must be one floating-point number on the device of target");
    update.momentum_tensor = tensor->data_ptr();
    update.momentum_dtype = dtype(*tensor);
  }
  if (seed.has_value()) {
    check(seed->numel() == 1 && seed->scalar_type() == ScalarType::Long &&
              seed->get_device_index() == target[0].get_device_index(),
          "fastcl: seed must be one int64 number on the device of target");
    update.seed = mutable_data<int64_t>(*seed, "seed");
  }
  return update;
}

void momentum_update_on_cpu(std::vector<Tensor> target, std::vector<Tensor> online, double momentum,
                            OptionalTensor tensor, OptionalTensor seed) {
  if (target.empty()) return;
  const MomentumUpdate update = update_of(target, online, momentum, tensor, seed);
  if (tensor.has_value()) {
    const Tensor wide = torch::stable::to(*tensor, ScalarType::Double);
    momentum = *static_cast<const double*>(wide.data_ptr());
  }
  std::vector<int64_t> first(1, 0);  // chunk of every pair, and their number
  for (const MomentumPair& pair : update.pairs) {
    first.push_back(first.back() + (pair.count + kMomentumChunk - 1) / kMomentumChunk);
  }
  torch::stable::parallel_for(0, first.back(), 2, [&](int64_t begin, int64_t end) {
    int64_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      while (chunk >= first[i + 1]) ++i;
      momentum_update_cpu(update.pairs[i], (chunk - first[i]) * kMomentumChunk, momentum,
                          update.seed, i);
    }
  });
  if (update.seed != nullptr) *update.seed = (*update.seed + 1) & 0xFFFFFFFF;
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("momentum_update_", TORCH_BOX(&fastcl::momentum_update_on_cpu));
}

#ifdef FASTCL_CUDA
namespace fastcl {
namespace {

void momentum_update_on_cuda(std::vector<Tensor> target, std::vector<Tensor> online,
                             double momentum, OptionalTensor tensor, OptionalTensor seed) {
  if (target.empty()) return;
  const MomentumUpdate update = update_of(target, online, momentum, tensor, seed);
  const torch::stable::accelerator::DeviceGuard guard(target[0].get_device_index());
  const char* error = momentum_update_cuda(update, current_stream(target[0]));
  check(error == nullptr, "fastcl: momentum_update_: ", error);
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CUDA, m) {
  m.impl("momentum_update_", TORCH_BOX(&fastcl::momentum_update_on_cuda));
}
#endif
