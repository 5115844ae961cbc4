// queue_push_: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include "tensor.h"

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { (void)m; }
