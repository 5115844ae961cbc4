// One chunk of momentum_update_, compiled once per instruction set. One read of both tensors, one
// write: memory sets the time. Products and sums stay apart (-ffp-contract=off), so every
// instruction set, the reference and the GPU give the same bits.
#include "../../momentum.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "../../random.h"
#include "../float16.h"

namespace fastcl {
namespace FASTCL_SIMD {
namespace {

constexpr uint32_t kBlock = 256;

// momentum t + (1 - momentum) o, the increment added to the nearer end; equal ends stay.
template <bool near_target, typename A>
A mix(A t, A o, A momentum, A weight) {
  const A gap = o - t;
  const A mixed = near_target ? t + weight * gap : o - momentum * gap;
  return t == o ? t : mixed;
}

// 16 random bits for each of n elements, of which the first is the first of its pair.
void draw(uint16_t* bits, uint32_t n, uint64_t key, uint32_t pair) {
  uint32_t hashes[kBlock / 2];
  for (uint32_t i = 0; i < (n + 1) / 2; ++i) hashes[i] = random_bits(key, pair + i);
  static_assert(std::endian::native == std::endian::little);  // the low half comes first
  std::memcpy(bits, hashes, n * sizeof(uint16_t));
}

// Rounded at random, in blocks that stay in the first-level cache.
template <typename T, typename F>
void store_stochastic(T* t, int64_t n, const uint64_t* key, uint32_t pair, F&& value) {
  float x[kBlock];
  uint16_t bits[kBlock];
  for (int64_t i = 0; i < n; i += kBlock) {
    const uint32_t count = static_cast<uint32_t>(std::min<int64_t>(kBlock, n - i));
    draw(bits, count, *key, pair + static_cast<uint32_t>(i / 2));
    for (uint32_t j = 0; j < count; ++j) x[j] = value(i + j);
    for (uint32_t j = 0; j < count; ++j) t[i + j] = narrow_stochastic<T>(x[j], bits[j]);
  }
}

// t = value(i) for every i; a 16-bit target with a key is rounded at random.
template <typename T, typename F>
void store(T* t, int64_t n, const uint64_t* key, uint32_t pair, F&& value) {
  if constexpr (sizeof(T) == 2) {
    if (key != nullptr) return store_stochastic(t, n, key, pair, value);
  }
  for (int64_t i = 0; i < n; ++i) t[i] = narrow<T>(value(i));
}

template <bool near_target, typename T, typename O>
void update(T* t, const O* o, int64_t n, double momentum, const uint64_t* key, uint32_t pair) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const A m = static_cast<A>(momentum), w = static_cast<A>(1 - momentum);
  store(t, n, key, pair, [=](int64_t i) {
    return mix<near_target, A>(widen(t[i]), static_cast<A>(widen(o[i])), m, w);
  });
}

// momentum 0: exactly online where the target can hold it.
template <typename T, typename O>
void replace(T* t, const O* o, int64_t n, const uint64_t* key, uint32_t pair) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  store(t, n, key, pair, [=](int64_t i) { return static_cast<A>(widen(o[i])); });
}

template <typename T, typename O>
void chunk(const MomentumPair& p, int64_t begin, int64_t n, double momentum, const int64_t* seed,
           int64_t stream) {
  T* t = static_cast<T*>(p.target) + begin;
  const O* o = static_cast<const O*>(p.online) + begin;
  // What is close enough to an end to be rounded to it leaves it alone.
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const A weight = static_cast<A>(1 - momentum);
  if (weight == 0) return;
  const uint64_t pair = static_cast<uint64_t>(begin) / 2;
  const uint64_t key = seed ? offset_key(random_key(*seed, stream), pair) : 0;
  const uint64_t* rounding = seed ? &key : nullptr;
  if (weight == 1) return replace(t, o, n, rounding, static_cast<uint32_t>(pair));
  auto kernel = weight < A(0.5) ? update<true, T, O> : update<false, T, O>;
  kernel(t, o, n, momentum, rounding, static_cast<uint32_t>(pair));
}

template <typename T>
void chunk_from(const MomentumPair& p, int64_t begin, int64_t n, double momentum,
                const int64_t* seed, int64_t stream) {
  switch (p.online_dtype) {
    case Dtype::kFloat16:
      return chunk<T, Half>(p, begin, n, momentum, seed, stream);
    case Dtype::kBFloat16:
      return chunk<T, BFloat16>(p, begin, n, momentum, seed, stream);
    case Dtype::kFloat64:
      return chunk<T, double>(p, begin, n, momentum, seed, stream);
    default:
      return chunk<T, float>(p, begin, n, momentum, seed, stream);
  }
}

}  // namespace

void momentum_chunk(const MomentumPair& p, int64_t begin, double momentum, const int64_t* seed,
                    int64_t stream) {
  const int64_t n = std::min(kMomentumChunk, p.count - begin);
  switch (p.target_dtype) {
    case Dtype::kFloat16:
      return chunk_from<Half>(p, begin, n, momentum, seed, stream);
    case Dtype::kBFloat16:
      return chunk_from<BFloat16>(p, begin, n, momentum, seed, stream);
    case Dtype::kFloat32:
      return chunk_from<float>(p, begin, n, momentum, seed, stream);
    case Dtype::kFloat64:
      return chunk_from<double>(p, begin, n, momentum, seed, stream);
    case Dtype::kOther:
      std::memcpy(static_cast<char*>(p.target) + begin, static_cast<const char*>(p.online) + begin,
                  n);
  }
}

}  // namespace FASTCL_SIMD
}  // namespace fastcl
