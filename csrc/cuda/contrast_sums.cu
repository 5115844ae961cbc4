// Row and column sums of 2^(a <q_i, k_j> - c), a = scale log2(e), over the negatives: the forward
// of the softmax contrast in one pass. fastcl/reference/contrast_sums.py says the same in PyTorch;
// Oord et al., arXiv:1807.03748, and Radford et al., arXiv:2103.00020, figure 3.
// Bytes: 256 rows of d features from L2 per tile of 128 x 256, 4 (n strips + m n / 64) of sums.
// The idea: one warpgroup loads; two multiply 64 x 256 each, the second a little later, so that the
// exponentials of one run while the tensor cores work for the other. Nothing is atomic: every sum
// has one place. A persistent grid keeps the loads of the next tile under way. Two blocks with
// neighbouring rows read the same columns: each loads half of them into both.
#include <cuda_runtime.h>

#include <algorithm>

#include "../contrast_sums.h"
#include "hopper.h"
#include "tensor_map.h"

namespace fastcl {
namespace {

constexpr int kRows = 128, kColumns = 256, kFeatures = 64, kStages = 4;
constexpr int kGroup = 128;  // threads of a warpgroup: one loads, two multiply
constexpr int kThreads = 3 * kGroup;
constexpr int kRowBytes = kFeatures * 2;
constexpr int kStageBytes = (kRows + kColumns) * kRowBytes;
constexpr int kBlocks = 2;  // of a cluster

struct Shared {
  alignas(1024) uint8_t stage[kStages][kStageBytes];  // q, then k
  float columns[2][4][kColumns];                      // sums of 16 rows: warpgroup, warp
  uint64_t full[kStages], empty[kStages];
};

__host__ __device__ int pairs_of(const ContrastSums& p) {
  return (p.tiles + kBlocks - 1) / kBlocks;
}

// Items of a cluster: a pair of row tiles and a strip. The last pair may have a tile too many: its
// block reads along, and writes nothing.
__host__ __device__ int items(const ContrastSums& p) {
  const int columns = (p.m + kColumns - 1) / kColumns;
  return pairs_of(p) * ((columns + p.strip - 1) / p.strip);
}

// Older architectures are compiled too, without a body, and know no clusters.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define FASTCL_CLUSTER
#else
#define FASTCL_CLUSTER __cluster_dims__(kBlocks, 1, 1)
#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kLead = 2;  // steps over features that the first warpgroup is ahead: an epilogue

struct Item {
  int row, begin, end;  // first row; column tiles
  int strip;
};

__device__ Item item_of(const ContrastSums& p, int index, int rank) {
  const int pairs = pairs_of(p), strip = index / pairs;
  const int columns = (p.m + kColumns - 1) / kColumns, begin = strip * p.strip;
  const int tile = p.first + index % pairs * kBlocks + rank;
  return {tile * kRows, begin, min(begin + p.strip, columns), strip};
}

// Which stage comes next, and the parity of its barriers.
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

__device__ void load_all(const ContrastSums& p, Shared& shared, const CUtensorMap* q,
                         const CUtensorMap* k) {
  Ring ring;
  const int count = items(p), steps = (p.d + kFeatures - 1) / kFeatures;
  const int rank = hopper::cluster_rank(), half = rank * (kColumns / kBlocks);
  for (int index = blockIdx.x / kBlocks; index < count; index += gridDim.x / kBlocks) {
    const Item item = item_of(p, index, rank);
    for (int tile = item.begin; tile < item.end; ++tile) {
      for (int step = 0; step < steps; ++step, ring.next()) {
        hopper::barrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
        uint64_t* full = &shared.full[ring.stage];
        hopper::barrier_expect(full, kStageBytes);
        uint8_t* stage = shared.stage[ring.stage];
        hopper::load_tile(stage, q, full, step * kFeatures, item.row);
        // Into both blocks: their stages are free, for all four readers have arrived here.
        hopper::load_tile(stage + (kRows + half) * kRowBytes, k, full, step * kFeatures,
                          tile * kColumns + half, (1 << kBlocks) - 1);
      }
    }
  }
}

struct Factor {
  float high, low, shift;
};

// As factor_parts and fixed_shift in fastcl/kernels/contrast_tile.py.
__device__ Factor factor_of(const ContrastSums& p) {
  const double total = p.logit_scale == nullptr ? p.scale : p.scale * *p.logit_scale;
  const double factor = total * 1.4426950408889634;
  const float high = static_cast<float>(factor * (1 - 0x1p-23));
  const double above = total > 74 ? total - 74 : 0;
  return {high, static_cast<float>(factor - high),
          static_cast<float>(floor(above * 1.4426950408889634))};
}

// One thread of a warpgroup says to both blocks that a stage has been read.
__device__ void release(Shared& shared, int stage) {
  if (threadIdx.x % kGroup == 0) {
    for (int block = 0; block < kBlocks; ++block) {
      hopper::barrier_arrive(&shared.empty[stage], block);
    }
  }
}

// s of 64 x 256 logits as cosines in d; the steps of the ring are released as they are read.
__device__ void multiply(float (&d)[128], Shared& shared, Ring& ring, int group, int steps,
                         bool& announced) {
  int before = -1;
  for (int step = 0; step < steps; ++step, ring.next()) {
    hopper::barrier_wait(&shared.full[ring.stage], ring.parity);
    const uint8_t* stage = shared.stage[ring.stage];
    const uint64_t a = hopper::operand(stage + group * 64 * kRowBytes);
    const uint64_t b = hopper::operand(stage + kRows * kRowBytes);
    hopper::product_fence();
#pragma unroll
    for (int part = 0; part < kFeatures / 16; ++part) {  // 32 bytes further, in units of 16
      hopper::product_64x256x16(d, a + 2 * part, b + 2 * part, step + part > 0);
    }
    hopper::product_commit();
    hopper::product_wait<1>();  // the step before is done
    if (before >= 0) release(shared, before);
    before = ring.stage;
    if (!announced && group == 0 && (step + 1 == kLead || step + 1 == steps)) {
      hopper::announce(3, 2 * kGroup);
      announced = true;
    }
  }
  hopper::product_wait<0>();
  release(shared, before);
}

// Positives and what lies beyond the border leave as minus infinity.
__device__ void hide(float (&d)[128], const ContrastSums& p, int row, int col) {
#pragma unroll
  for (int i = 0; i < 128; ++i) {
    const int r = row + (i % 4 / 2) * 8, c = col + i / 4 * 8 + i % 2;
    const bool other = r < p.n && c < p.m && (p.row_ids == nullptr || p.row_ids[r] != p.col_ids[c]);
    if (!other) d[i] = -INFINITY;
  }
}

__device__ float power(float x, Factor f) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(fmaf(x, f.low, fmaf(x, f.high, -f.shift))));
  return y;
}

// Of 32 columns this lane's two of every eight, [4][2], to the sum of one column over 16 rows:
// each exchange halves the columns and doubles the rows. Lane 4 i + j gets column 8 a + 2 j + b,
// where i = a + 4 b.
__device__ float sum_of_column(float (&x)[8], int lane) {
#pragma unroll
  for (int half = 4, mask = 16; half > 0; half /= 2, mask /= 2) {
    const bool upper = lane & mask;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float sent = upper ? x[i] : x[i + half];
      const float kept = upper ? x[i + half] : x[i];
      x[i] = kept + __shfl_xor_sync(0xFFFFFFFF, sent, mask);
    }
  }
  return x[0];
}

__device__ void multiply_all(const ContrastSums& p, Shared& shared, int group) {
  Ring ring;
  bool announced = false;
  const int count = items(p), steps = (p.d + kFeatures - 1) / kFeatures;
  const int thread = threadIdx.x % kGroup, warp = thread / 32, lane = thread % 32;
  const Factor factor = factor_of(p);
  const int rank = hopper::cluster_rank();
  if (group == 1 && blockIdx.x / kBlocks < count) hopper::meet(3, 2 * kGroup);
  for (int index = blockIdx.x / kBlocks; index < count; index += gridDim.x / kBlocks) {
    const Item item = item_of(p, index, rank);
    const bool spare = item.row >= (p.first + p.tiles) * kRows;
    const int block = item.row / 64 + group;  // of 64 rows
    const int row = block * 64 + warp * 16 + lane / 4;
    float sums[2] = {};
    for (int tile = item.begin; tile < item.end; ++tile) {
      float d[128];
      multiply(d, shared, ring, group, steps, announced);
      const int col = tile * kColumns;
      bool special = block * 64 + 64 > p.n || col + kColumns > p.m;
      if (p.row_range != nullptr && block * 64 < p.n) {
        special = special || (p.row_range[2 * block] <= p.col_range[2 * tile + 1] &&
                              p.col_range[2 * tile] <= p.row_range[2 * block + 1]);
      }
      if (special) hide(d, p, row, col + lane % 4 * 2);
#pragma unroll
      for (int part = 0; part < 8; ++part) {  // 32 columns
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int at = part * 16 + i % 4 * 4 + i / 4;  // columns 8 (i % 4) + i / 4
          const float upper = power(d[at], factor), lower = power(d[at + 2], factor);
          sums[0] += upper;
          sums[1] += lower;
          x[i] = upper + lower;
        }
        const float sum = sum_of_column(x, lane);
        const int i = lane / 4;  // bit 2 of it chose the odd column
        shared.columns[group][warp][part * 32 + i % 4 * 8 + lane % 4 * 2 + i / 4] = sum;
      }
      hopper::meet(1 + group, kGroup);
      for (int j = thread; j < kColumns; j += kGroup) {
        const float (&x)[4][kColumns] = shared.columns[group];
        const int64_t line = block - 2 * p.first;
        if (col + j < p.m && !spare) {
          p.col_part[line * p.m + col + j] = (x[0][j] + x[1][j]) + (x[2][j] + x[3][j]);
        }
      }
      hopper::meet(1 + group, kGroup);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = sums[i] + __shfl_xor_sync(0xFFFFFFFF, sums[i], 1);
      sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2);
      const int r = row + 8 * i;
      if (lane % 4 == 0 && r < p.n && !spare)
        p.row_part[static_cast<int64_t>(item.strip) * p.n + r] = sum;
    }
  }
}

#endif

__global__ void FASTCL_CLUSTER __launch_bounds__(kThreads, 1)
    hopper_sums_kernel(const ContrastSums p, const __grid_constant__ CUtensorMap q,
                       const __grid_constant__ CUtensorMap k) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::barrier_init(&shared.full[i], 1);
      hopper::barrier_init(&shared.empty[i], 2 * kBlocks);  // every warpgroup that reads it
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  hopper::cluster_meet();  // no block loads into one whose barriers are not there yet
  // 40 + 2 * 232 registers of 128 threads each fill the file.
  if (threadIdx.x < kGroup) {
    hopper::give_registers<40>();
    if (threadIdx.x == 0) load_all(p, shared, &q, &k);
  } else {
    hopper::take_registers<232>();
    multiply_all(p, shared, threadIdx.x / kGroup - 1);
  }
  __syncwarp();
  hopper::cluster_meet();  // nor arrives at one that has gone
#endif
}

}  // namespace

const char* contrast_sums_cuda(const ContrastSums& p, void* stream) {
  CUtensorMap q, k;
  if (!describe_rows(&q, p.q, p.n, p.d, kRows, kFeatures) ||
      !describe_rows(&k, p.k, p.m, p.d, kColumns / kBlocks, kFeatures)) {
    return "rows cannot be described to the bulk copy engine";
  }
  const int bytes = static_cast<int>(sizeof(Shared));
  cudaError_t error =
      cudaFuncSetAttribute(hopper_sums_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  const int clusters = std::max(1, std::min(p.processors / kBlocks, items(p)));
  hopper_sums_kernel<<<clusters * kBlocks, kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(
      p, q, k);
  error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace fastcl
