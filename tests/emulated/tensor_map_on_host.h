// The driver's encoder of tensor maps, as far as csrc/cuda/tensor_map.h asks for it: it refuses
// what the driver refuses.
#pragma once

#include "hopper_on_host.h"

using cuuint32_t = uint32_t;
using cuuint64_t = uint64_t;
enum CUresult { CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE };
enum CUtensorMapDataType { CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 };
enum CUtensorMapInterleave { CU_TENSOR_MAP_INTERLEAVE_NONE };
enum CUtensorMapSwizzle { CU_TENSOR_MAP_SWIZZLE_128B };
enum CUtensorMapL2promotion { CU_TENSOR_MAP_L2_PROMOTION_L2_256B };
enum CUtensorMapFloatOOBfill { CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };
enum { cudaEnableDefault };

namespace emulated {

inline CUresult encode(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void* x,
                       const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                       const cuuint32_t* steps, CUtensorMapInterleave, CUtensorMapSwizzle,
                       CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const bool fits = rank == 2 && reinterpret_cast<uintptr_t>(x) % 16 == 0 && strides[0] % 16 == 0 &&
                    box[0] * 2 == 128 && box[1] <= 256 && steps[0] == 1 && steps[1] == 1;
  if (!fits) return CUDA_ERROR_INVALID_VALUE;
  const Matrix matrix{
      static_cast<const uint8_t*>(x), sizes[0], sizes[1], strides[0], box[0], box[1]};
  std::memcpy(map, &matrix, sizeof(matrix));
  return CUDA_SUCCESS;
}

}  // namespace emulated

inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                    int, cudaDriverEntryPointQueryResult* result) {
  if (std::strcmp(name, "cuTensorMapEncodeTiled") != 0) return cudaErrorLaunchFailure;
  *function = reinterpret_cast<void*>(&emulated::encode);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
