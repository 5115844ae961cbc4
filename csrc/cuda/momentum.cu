// momentum_update_: t = t + (1 - m) (o - t) for every tensor of a list. He et al. 2020, equation 2.
// Reads both, writes one: 12 bytes per float32 element, 10 for bfloat16 into float32; nothing else
// takes time. The whole list goes into one launch: its table travels as the kernel's argument (32
// KB since CUDA 12.1), so there is no copy to the device and a captured graph holds it. A block
// serves one chunk, whose tensor it finds by bisection in the table. 16-bit targets are rounded at
// random; the state of the generator advances in the same launch as the pointer does in queue.cu.
// Products and sums are not fused, so the bits are the reference's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "../momentum.h"
#include "../random.h"

namespace fastcl {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 8192;  // elements per block: a ResNet-50 fills 132 processors six times
constexpr int kCapacity = CUDART_VERSION >= 12010 ? 1152 : 128;

struct Table {
  void* target[kCapacity];
  const void* online[kCapacity];
  uint64_t shape[kCapacity];  // count << 8 | target dtype << 4 | online dtype
  uint32_t first_chunk[kCapacity + 1];
  int32_t pairs;
  int64_t stream;  // of the first pair: its place in the whole list
  double momentum;
  const void* momentum_tensor;
  unsigned long long* seed;
  Dtype momentum_dtype;
  bool advance;  // the last launch of the list
};
static_assert(sizeof(Table) <= (CUDART_VERSION >= 12010 ? 32764 : 4096));

struct Rounding {
  bool random;
  uint64_t key;
};

template <typename A>
struct Weights {
  A weight;  // of online
  A factor;  // of the gap, from the end that is nearer: the target's or minus the online's
  bool near_target;
};

template <typename A>
__device__ Weights<A> weights(double momentum) {
  const A weight = static_cast<A>(1 - momentum);
  const bool near_target = weight < A(0.5);
  return {weight, near_target ? weight : -static_cast<A>(momentum), near_target};
}

template <typename A, typename T>
__device__ A widen(T x) {
  if constexpr (std::is_same_v<T, double>) {
    return static_cast<A>(x);
  } else {
    return static_cast<A>(static_cast<float>(x));
  }
}

__device__ float product(float a, float b) { return __fmul_rn(a, b); }
__device__ double product(double a, double b) { return __dmul_rn(a, b); }

// The increment is added to the nearer end; equal ends stay; momentum 0 is a copy.
template <typename A>
__device__ A mix(A t, A o, Weights<A> w) {
  const A mixed = (w.near_target ? t : o) + product(w.factor, o - t);
  return t == o ? t : w.weight == 1 ? o : mixed;
}

// bits: 16 random ones. See reference.stochastic_round.
__device__ uint16_t bfloat16_stochastic(float x, uint32_t bits) {
  const uint32_t u = __float_as_uint(x), a = u & 0x7FFFFFFF;
  const uint32_t h = a < 0x7F800000 ? (a + bits) >> 16 : a > 0x7F800000 ? 0x7FC0u : 0x7F80u;
  return static_cast<uint16_t>(h | (u >> 16 & 0x8000));
}

__device__ uint16_t float16_stochastic(float x, uint32_t bits) {
  const uint32_t u = __float_as_uint(x), a = u & 0x7FFFFFFF;
  bits >>= 3;
  uint32_t h = (a - (112u << 23) + bits) >> 13;
  if (a < 0x38800000) {
    h = static_cast<uint32_t>(__uint_as_float(a) * 0x1p24f + static_cast<float>(bits) * 0x1p-13f);
  } else if (a >= 0x47800000) {
    h = a > 0x7F800000 ? 0x7E00 : 0x7C00;
  }
  return static_cast<uint16_t>(h | (u >> 16 & 0x8000));
}

template <typename T, typename A>
__device__ T narrow(A x, bool random, uint32_t bits) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (random) return __ushort_as_bfloat16(bfloat16_stochastic(x, bits));
  } else if constexpr (std::is_same_v<T, __half>) {
    if (random) return __ushort_as_half(float16_stochastic(x, bits));
  }
  return static_cast<T>(x);
}

template <typename T, int n>
struct alignas(sizeof(T) * n) Vector {
  T x[n];
};

// n elements of which the first, `index` in the chunk, is even unless n is 1.
template <typename T, typename O, int n, typename A>
__device__ Vector<T, n> mix_vector(Vector<T, n> t, Vector<O, n> o, Weights<A> w, Rounding rounding,
                                   uint32_t pair, uint32_t index) {
  uint32_t bits = 0;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    if constexpr (sizeof(T) == 2) {
      const uint32_t at = index + j;
      if (rounding.random && (j % 2 == 0)) bits = random_bits(rounding.key, pair + at / 2);
      if (j % 2 == 1 || (n == 1 && at % 2 == 1)) bits >>= 16;
    }
    t.x[j] = narrow<T>(mix(widen<A>(t.x[j]), widen<A>(o.x[j]), w), rounding.random, bits & 0xFFFF);
  }
  return t;
}

// [0, count) of a chunk in vectors of n, several of them loaded ahead of the first use.
template <typename T, typename O, int n, typename A>
__device__ void mix_chunk(T* target, const O* online, uint32_t count, Weights<A> w,
                          Rounding rounding, uint32_t pair) {
  // 64 bytes of float32 in flight per thread and tensor; more spills at four blocks per processor.
  constexpr int kUnroll = n <= 2 ? 2 : 16 / n;
  auto* t = reinterpret_cast<Vector<T, n>*>(target);
  const auto* o = reinterpret_cast<const Vector<O, n>*>(online);
  const uint32_t vectors = count / n;
  for (uint32_t base = threadIdx.x; base < vectors; base += kThreads * kUnroll) {
    Vector<T, n> a[kUnroll];
    Vector<O, n> b[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const uint32_t i = base + k * kThreads;
      if (i < vectors) {
        a[k] = t[i];
        b[k] = o[i];
      }
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      const uint32_t i = base + k * kThreads;
      if (i < vectors) t[i] = mix_vector(a[k], b[k], w, rounding, pair, i * n);
    }
  }
  const uint32_t i = vectors * n + threadIdx.x;
  if (n > 1 && i < count) {
    auto* last = reinterpret_cast<Vector<T, 1>*>(target + i);
    const auto* from = reinterpret_cast<const Vector<O, 1>*>(online + i);
    *last = mix_vector(*last, *from, w, rounding, pair, i);
  }
}

template <typename T, typename O>
__device__ void update(void* target, const void* online, int64_t begin, uint32_t count,
                       double momentum, Rounding rounding) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  constexpr int n = 16 / (sizeof(T) > sizeof(O) ? sizeof(T) : sizeof(O));
  const Weights<A> w = weights<A>(momentum);
  if (w.weight == 0) return;
  T* t = static_cast<T*>(target) + begin;
  const O* o = static_cast<const O*>(online) + begin;
  const uint64_t pair = static_cast<uint64_t>(begin) / 2;
  rounding.key = offset_key(rounding.key, pair);
  const bool aligned = reinterpret_cast<uintptr_t>(t) % (n * sizeof(T)) == 0 &&
                       reinterpret_cast<uintptr_t>(o) % (n * sizeof(O)) == 0;
  if (aligned) {
    mix_chunk<T, O, n>(t, o, count, w, rounding, static_cast<uint32_t>(pair));
  } else {
    mix_chunk<T, O, 1>(t, o, count, w, rounding, static_cast<uint32_t>(pair));
  }
}

template <typename T>
__device__ void update_from(Dtype online_dtype, void* t, const void* o, int64_t begin,
                            uint32_t count, double momentum, Rounding rounding) {
  switch (online_dtype) {
    case Dtype::kFloat16:
      return update<T, __half>(t, o, begin, count, momentum, rounding);
    case Dtype::kBFloat16:
      return update<T, __nv_bfloat16>(t, o, begin, count, momentum, rounding);
    case Dtype::kFloat64:
      return update<T, double>(t, o, begin, count, momentum, rounding);
    default:
      return update<T, float>(t, o, begin, count, momentum, rounding);
  }
}

// Integers: 16 bytes at a time where aligned.
__device__ void copy_bytes(char* t, const char* o, uint32_t count) {
  const bool aligned = (reinterpret_cast<uintptr_t>(t) | reinterpret_cast<uintptr_t>(o)) % 16 == 0;
  const uint32_t wide = aligned ? count / 16 : 0;
  for (uint32_t i = threadIdx.x; i < wide; i += kThreads) {
    reinterpret_cast<uint4*>(t)[i] = reinterpret_cast<const uint4*>(o)[i];
  }
  for (uint32_t i = wide * 16 + threadIdx.x; i < count; i += kThreads) t[i] = o[i];
}

__device__ double momentum_of(const Table& table) {
  const void* x = table.momentum_tensor;
  if (x == nullptr) return table.momentum;
  switch (table.momentum_dtype) {
    case Dtype::kFloat16:
      return widen<double>(*static_cast<const __half*>(x));
    case Dtype::kBFloat16:
      return widen<double>(*static_cast<const __nv_bfloat16*>(x));
    case Dtype::kFloat64:
      return *static_cast<const double*>(x);
    default:
      return *static_cast<const float*>(x);
  }
}

// The state at the start of the launch; the last block to come advances it, all others having read.
__device__ int64_t arrive(const Table& table) {
  if (!table.advance) return static_cast<int64_t>(*table.seed);
  const unsigned long long seen = atomicAdd(table.seed, 1ull << 32);
  if (seen >> 32 == gridDim.x - 1) atomicExch(table.seed, (seen + 1) & 0xFFFFFFFF);
  return static_cast<int64_t>(seen & 0xFFFFFFFF);
}

__global__ void __launch_bounds__(kThreads, 4) update_kernel(const __grid_constant__ Table table) {
  __shared__ int64_t seed;
  int low = 0, high = table.pairs;  // first_chunk[low] <= block < first_chunk[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first_chunk[middle] <= blockIdx.x ? low : high) = middle;
  }
  const uint64_t shape = table.shape[low];
  const int64_t begin = static_cast<int64_t>(blockIdx.x - table.first_chunk[low]) * kChunk;
  const int64_t left = static_cast<int64_t>(shape >> 8) - begin;
  const uint32_t count = left < kChunk ? static_cast<uint32_t>(left) : kChunk;
  void* t = table.target[low];
  const void* o = table.online[low];
  Rounding rounding{table.seed != nullptr, 0};
  if (rounding.random) {
    if (threadIdx.x == 0) seed = arrive(table);
    __syncthreads();
    rounding.key = random_key(seed, table.stream + low);
  }
  const double m = momentum_of(table);
  const Dtype from = static_cast<Dtype>(shape & 15);
  switch (static_cast<Dtype>(shape >> 4 & 15)) {
    case Dtype::kFloat16:
      return update_from<__half>(from, t, o, begin, count, m, rounding);
    case Dtype::kBFloat16:
      return update_from<__nv_bfloat16>(from, t, o, begin, count, m, rounding);
    case Dtype::kFloat32:
      return update_from<float>(from, t, o, begin, count, m, rounding);
    case Dtype::kFloat64:
      return update_from<double>(from, t, o, begin, count, m, rounding);
    case Dtype::kOther:
      return copy_bytes(static_cast<char*>(t) + begin, static_cast<const char*>(o) + begin, count);
  }
}

}  // namespace

const char* momentum_update_cuda(const MomentumUpdate& update, void* stream) {
  const size_t total = update.pairs.size();
  for (size_t begin = 0; begin < total; begin += kCapacity) {
    Table table;
    table.pairs = static_cast<int32_t>(std::min<size_t>(kCapacity, total - begin));
    uint32_t chunks = 0;
    for (int32_t i = 0; i < table.pairs; ++i) {
      const MomentumPair& pair = update.pairs[begin + i];
      table.target[i] = pair.target;
      table.online[i] = pair.online;
      table.shape[i] = static_cast<uint64_t>(pair.count) << 8 |
                       static_cast<uint64_t>(pair.target_dtype) << 4 |
                       static_cast<uint64_t>(pair.online_dtype);
      table.first_chunk[i] = chunks;
      chunks += static_cast<uint32_t>((pair.count + kChunk - 1) / kChunk);
    }
    table.first_chunk[table.pairs] = chunks;
    table.stream = static_cast<int64_t>(begin);
    table.momentum = update.momentum;
    table.momentum_tensor = update.momentum_tensor;
    table.momentum_dtype = update.momentum_dtype;
    table.seed = reinterpret_cast<unsigned long long*>(update.seed);
    table.advance = begin + kCapacity >= total;
    // A list of empty tensors still takes one block, which advances the seed.
    update_kernel<<<std::max(chunks, 1u), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(table);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) return cudaGetErrorString(error);
  }
  return nullptr;
}

}  // namespace fastcl
