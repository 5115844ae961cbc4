// Tile products through the stable C shims: a handle over a pointer is about 0.3 us, so a tile of
// 128 x 128 x 128 (50 us) hardly notices. The shims call at::cpu:: directly, below autograd.
#include "cpu/product.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/stable/c/shim.h>

#include <stdexcept>
#include <type_traits>

namespace fastcl::cpu {
namespace {

void check(AOTITorchError error, const char* what) {
  if (error != AOTI_TORCH_SUCCESS) throw std::runtime_error(what);
}

class Handle {
 public:
  template <typename T>
  explicit Handle(const View<T>& x) {
    const int64_t sizes[] = {x.rows, x.cols};
    const int64_t strides[] = {x.row_stride, x.col_stride};
    const int32_t dtype = std::is_same_v<std::remove_const_t<T>, double>
                              ? aoti_torch_dtype_float64()
                              : aoti_torch_dtype_float32();
    check(aoti_torch_create_tensor_from_blob(const_cast<std::remove_const_t<T>*>(x.data), 2, sizes,
                                             strides, 0, dtype, aoti_torch_device_type_cpu(), 0,
                                             &handle_),
          "fastcl: no tensor over a tile");
  }
  ~Handle() { aoti_torch_delete_tensor_object(handle_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  AtenTensorHandle get() const { return handle_; }

 private:
  AtenTensorHandle handle_;
};

}  // namespace

template <typename T>
void product(const View<const T>& a, const View<const T>& b, const View<T>& out, bool accumulate) {
  const Handle left(a), right(b), result(out);
  const AOTITorchError error =
      accumulate
          ? aoti_torch_cpu_addmm_out(result.get(), result.get(), left.get(), right.get(), 1, 1)
          : aoti_torch_cpu_mm_out(result.get(), left.get(), right.get());
  check(error, "fastcl: the product of two tiles failed");
}

template void product(const View<const float>&, const View<const float>&, const View<float>&,
                      bool);
template void product(const View<const double>&, const View<const double>&, const View<double>&,
                      bool);

int thread_count() {
  uint32_t count = 1;
  check(torch_get_num_threads(&count), "fastcl: no thread count");
  return static_cast<int>(count);
}

void parallel(int64_t workers, const std::function<void(int64_t)>& work) {
  if (workers == 1) return work(0);
  auto run = [](int64_t begin, int64_t end, void* context) {
    for (int64_t i = begin; i < end; ++i) {
      (*static_cast<const std::function<void(int64_t)>*>(context))(i);
    }
  };
  check(torch_parallel_for(0, workers, 1, run, const_cast<void*>(static_cast<const void*>(&work))),
        "fastcl: a parallel loop failed");
}

}  // namespace fastcl::cpu
