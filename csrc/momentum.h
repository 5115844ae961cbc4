// momentum_update_: target = momentum * target + (1 - momentum) * online over a list of tensors.
#pragma once

#include <vector>

#include "dtype.h"

namespace fastcl {

struct MomentumPair {
  void* target;        // [count]
  const void* online;  // [count]
  int64_t count;       // elements, or bytes to copy where the dtype is kOther
  Dtype target_dtype;
  Dtype online_dtype;
};

struct MomentumUpdate {
  std::vector<MomentumPair> pairs;
  double momentum;
  const void* momentum_tensor;  // [] on the device of the pairs, or null; replaces momentum
  Dtype momentum_dtype;
  int64_t* seed;  // [] in [0, 2^32), or null: 16-bit targets are rounded to nearest
};

// A chunk is [begin, begin + kMomentumChunk) of a pair, so that it never crosses 2^32 pairs of
// elements, the counter of the random bits; large enough to hide the call, small enough to balance.
constexpr int64_t kMomentumChunk = 16384;

// One chunk; seed points to a copy of the state, which does not advance here.
void momentum_update_cpu(const MomentumPair& pair, int64_t begin, double momentum,
                         const int64_t* seed, int64_t stream);

// One launch per 1,152 pairs. Null, or what CUDA says is wrong.
const char* momentum_update_cuda(const MomentumUpdate& update, void* stream);

}  // namespace fastcl
