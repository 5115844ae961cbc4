// large_pages_: advice to the system, the tensor stays as it is.
#include "cpu/large_pages.h"

#include "tensor.h"

namespace fastcl {
namespace {

void large_pages(Tensor x) {
  cpu::use_large_pages(mutable_data<char>(x, "x"), x.numel() * x.element_size());
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("large_pages_", TORCH_BOX(&fastcl::large_pages));
}
