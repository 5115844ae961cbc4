// CPU operators: tensors to pointers. Schemas, fakes and fallbacks are in fastcl/_library.py.
#include "tensor.h"

namespace fastcl {

}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { (void)m; }
