// CUDA operators: tensors to pointers, on torch's current stream.
#include "tensor.h"
