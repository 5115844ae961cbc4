// 16-bit floats without hardware: integer arithmetic and selects, which compilers vectorise.
// No step forms a float32 subnormal, so flush-to-zero mode changes nothing.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace fastcl {
namespace {  // compiled per instruction set: the linker must not merge the copies

// Enumerations and not structs: GCC vectorises loads and stores of scalars only.
enum class Half : uint16_t {};
enum class BFloat16 : uint16_t {};

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }
inline float widen(Half x) {
  const uint32_t h = static_cast<uint32_t>(x);
  const uint32_t sign = (h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7FFF;
  const float small = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t special = magnitude >= 0x7C00 ? 112u << 23 : 0u;  // inf and NaN
  const uint32_t normal = (magnitude << 13) + (112u << 23) + special;
  const uint32_t bits = magnitude < 0x400 ? std::bit_cast<uint32_t>(small) : normal;
  return std::bit_cast<float>(sign | bits);
}

// Round to nearest even.
template <typename T, typename F>
inline T narrow(F x) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t u = std::bit_cast<uint32_t>(static_cast<float>(x));
    const uint32_t nearest = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
    const bool nan = (u & 0x7FFFFFFF) > 0x7F800000;
    return static_cast<T>(nan ? 0x7FC0u : nearest);
  } else if constexpr (std::is_same_v<T, Half>) {
    const uint32_t u = std::bit_cast<uint32_t>(static_cast<float>(x));
    const uint32_t a = u & 0x7FFFFFFF;
    const uint32_t normal = (a - (112u << 23) + 0xFFF + (a >> 13 & 1)) >> 13;
    const float shifted = std::bit_cast<float>(a) + 0.5f;  // last place of 0.5 is 2^-24
    const uint32_t small = std::bit_cast<uint32_t>(shifted) - 0x3F000000;
    uint32_t h = a < 0x38800000 ? small : normal;
    h = a >= 0x47800000 ? (a > 0x7F800000 ? 0x7E00u : 0x7C00u) : h;
    return static_cast<T>(h | (u >> 16 & 0x8000));
  } else {
    return static_cast<T>(x);
  }
}

// Round to a neighbour at random; bits holds 16 random ones. See reference.stochastic_round.
template <typename T>
inline T narrow_stochastic(float x, uint32_t bits) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t a = u & 0x7FFFFFFF;
  uint32_t h;
  if constexpr (std::is_same_v<T, BFloat16>) {
    h = (a + bits) >> 16;
    h = a >= 0x7F800000 ? (a > 0x7F800000 ? 0x7FC0u : 0x7F80u) : h;
  } else {
    static_assert(std::is_same_v<T, Half>);
    bits >>= 3;
    const uint32_t normal = (a - (112u << 23) + bits) >> 13;
    const float scaled = std::bit_cast<float>(a < 0x38800000 ? a : 0u) * 0x1p24f +
                         static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-13f;
    h = a < 0x38800000 ? static_cast<uint32_t>(static_cast<int32_t>(scaled)) : normal;
    h = a >= 0x47800000 ? (a > 0x7F800000 ? 0x7E00u : 0x7C00u) : h;
  }
  return static_cast<T>(h | (u >> 16 & 0x8000));
}

}  // namespace
}  // namespace fastcl
