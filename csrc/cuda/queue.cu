// queue_push_: row r of the kept ones goes to (pointer + r) % K, pointer += b, normalised where
// asked. He et al. 2020, 3.1.
// Reads and writes each row once: b d (4 + 4) bytes in float32; at b = 256, d = 128 the launch is
// all the time there is, so there is one.
// The pointer advances in that launch without a second counter: every block adds 2^48 to it, which
// in one atomic step reads the position (the low 48 bits, not changed by this) and says how many
// blocks came before. The last to come knows that all others have read, so it may write
// position + b. No block waits for another, nothing is left to reset, and a replayed graph finds
// the number it expects.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../queue.h"

namespace fastcl {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 1024;  // 16 bits hold the count of blocks; several waves on any GPU
constexpr uint64_t kArrived = uint64_t{1} << 48;

template <typename T, typename F>
__device__ T convert(F x) {
  if constexpr (std::is_same_v<T, F>) {
    return x;
  } else if constexpr (std::is_same_v<T, double>) {
    return static_cast<double>(x);
  } else {
    return static_cast<T>(static_cast<float>(x));
  }
}

template <typename T, int n>
struct alignas(sizeof(T) * n) Vector {
  T x[n];
};

// Position of the first kept row; advances the pointer by `pushed`. Call once per block.
__device__ int64_t arrive(unsigned long long* pointer, int64_t pushed, int64_t kept, int64_t size) {
  const uint64_t seen = atomicAdd(pointer, static_cast<unsigned long long>(kArrived));
  const uint64_t position = seen & (kArrived - 1);
  if (seen >> 48 == gridDim.x - 1) {
    atomicExch(pointer, static_cast<unsigned long long>(position + pushed));
  }
  return static_cast<int64_t>((position + pushed - kept) % size);
}

// Rows end to end are one run of kept * width elements that wraps at size * width; n divides the
// width, so no vector crosses the end.
template <typename T, typename F, int n>
__global__ void __launch_bounds__(kThreads) push_kernel(QueuePush p) {
  __shared__ int64_t start;
  const auto* rows = static_cast<const Vector<F, n>*>(p.rows);
  auto* queue = static_cast<Vector<T, n>*>(p.queue);
  const int64_t count = p.kept * p.width / n;
  const int64_t capacity = p.size * p.width / n;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  Vector<F, n> next;
  if (i < count) next = rows[i];  // under way while the position is fetched
  if (threadIdx.x == 0) {
    auto* pointer = reinterpret_cast<unsigned long long*>(p.pointer);
    start = arrive(pointer, p.pushed, p.kept, p.size) * p.width / n;
  }
  __syncthreads();
  while (i < count) {
    Vector<T, n> out;
#pragma unroll
    for (int j = 0; j < n; ++j) out.x[j] = convert<T>(next.x[j]);
    const int64_t at = start + i;
    queue[at < capacity ? at : at - capacity] = out;
    i += stride;
    if (i < count) next = rows[i];
  }
}

// The same divided by its length, a warp per row; the second read of a row comes from L1.
template <typename T, typename F, int n>
__global__ void __launch_bounds__(kThreads) push_unit_kernel(QueuePush p) {
  using A = std::conditional_t<std::is_same_v<F, double>, double, float>;
  __shared__ int64_t start;
  if (threadIdx.x == 0) {
    start = arrive(reinterpret_cast<unsigned long long*>(p.pointer), p.pushed, p.kept, p.size);
  }
  __syncthreads();
  const int64_t vectors = p.width / n;
  const int lane = threadIdx.x % 32;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * (kThreads / 32);
  int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  for (; row < p.kept; row += stride) {
    const auto* x = static_cast<const Vector<F, n>*>(p.rows) + row * vectors;
    A square = 0;
    for (int64_t i = lane; i < vectors; i += 32) {
      const Vector<F, n> in = x[i];
#pragma unroll
      for (int j = 0; j < n; ++j) {
        const A value = convert<A>(in.x[j]);
        square += value * value;
      }
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      square += __shfl_xor_sync(0xFFFFFFFF, square, offset);
    }
    const A root = sqrt(square);
    const A length = root < A(kShortestRow) ? A(kShortestRow) : root;  // NaN passes on
    const int64_t to = start + row < p.size ? start + row : start + row - p.size;
    auto* y = static_cast<Vector<T, n>*>(p.queue) + to * vectors;
    for (int64_t i = lane; i < vectors; i += 32) {
      const Vector<F, n> in = x[i];
      Vector<T, n> out;
#pragma unroll
      for (int j = 0; j < n; ++j) out.x[j] = convert<T>(convert<A>(in.x[j]) / length);
      y[i] = out;
    }
  }
}

template <typename T, typename F>
void launch(const QueuePush& p, cudaStream_t stream) {
  constexpr int n = 16 / (sizeof(T) > sizeof(F) ? sizeof(T) : sizeof(F));
  const auto aligned = [](const void* x, size_t bytes) {
    return reinterpret_cast<uintptr_t>(x) % bytes == 0;
  };
  const bool vectors =
      p.width % n == 0 && aligned(p.queue, n * sizeof(T)) && aligned(p.rows, n * sizeof(F));
  const int64_t count =
      p.normalize ? p.kept * 32 : p.kept * p.width / (vectors ? n : 1);  // threads with work
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  const int grid = static_cast<int>(blocks < kBlocks ? blocks : kBlocks);
  auto kernel = vectors ? push_kernel<T, F, n> : push_kernel<T, F, 1>;
  if (p.normalize) kernel = vectors ? push_unit_kernel<T, F, n> : push_unit_kernel<T, F, 1>;
  kernel<<<grid, kThreads, 0, stream>>>(p);
}

template <typename T>
void launch_from(const QueuePush& p, cudaStream_t stream) {
  switch (p.rows_dtype) {
    case Dtype::kFloat16:
      return launch<T, __half>(p, stream);
    case Dtype::kBFloat16:
      return launch<T, __nv_bfloat16>(p, stream);
    case Dtype::kFloat64:
      return launch<T, double>(p, stream);
    default:
      return launch<T, float>(p, stream);
  }
}

}  // namespace

const char* queue_push_cuda(const QueuePush& p, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  switch (p.queue_dtype) {
    case Dtype::kFloat16:
      launch_from<__half>(p, on);
      break;
    case Dtype::kBFloat16:
      launch_from<__nv_bfloat16>(p, on);
      break;
    case Dtype::kFloat64:
      launch_from<double>(p, on);
      break;
    default:
      launch_from<float>(p, on);
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fastcl
