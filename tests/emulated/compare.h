// Numbers for the operators of csrc/cpu, and what they make of them in two instruction sets.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cpu/float16.h"
#include "cpu/instruction_set.h"
#include "dtype.h"

namespace emulated {

using namespace fastcl;
using cpu::InstructionSet;

constexpr Dtype kAll[] = {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32, Dtype::kFloat64};

inline int checks, differ;
inline std::mt19937 generator(1);

inline double step(Dtype dtype) {  // between one and the next number
  if (dtype == Dtype::kFloat64) return 0x1p-52;
  return dtype == Dtype::kFloat32 ? 0x1p-23 : dtype == Dtype::kFloat16 ? 0x1p-10 : 0x1p-7;
}
inline Dtype accumulator(Dtype dtype) { return dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32; }

// Numbers that lie behind those of an array and that no kernel may change; none where
// AddressSanitizer looks at what lies there.
#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kBehind = 0;
#else
constexpr int64_t kBehind = 64;
#endif

// Numbers of a dtype.
struct Array {
  Dtype dtype;
  int64_t size;
  std::vector<uint8_t> bytes;

  Array(Dtype dtype, int64_t size)
      : dtype(dtype), size(size), bytes((size + kBehind) * size_of(dtype), 0xFF) {}

  static Array random(Dtype dtype, int64_t size, double most = 1, double least = NAN) {
    std::uniform_real_distribution<double> number(std::isnan(least) ? -most : least, most);
    Array x(dtype, size);
    for (int64_t i = 0; i < size; ++i) x.set(i, number(generator));
    return x;
  }

  void* at(int64_t i) { return bytes.data() + i * size_of(dtype); }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(bytes.data());
  }

  void set(int64_t i, double x) {
    if (dtype == Dtype::kFloat64) return put(i, x);
    if (dtype == Dtype::kFloat32) return put(i, static_cast<float>(x));
    if (dtype == Dtype::kFloat16) return put(i, narrow<Half>(static_cast<float>(x)));
    put(i, narrow<BFloat16>(static_cast<float>(x)));
  }
  double get(int64_t i) {
    if (dtype == Dtype::kFloat64) return as<double>()[i];
    if (dtype == Dtype::kFloat32) return as<float>()[i];
    if (dtype == Dtype::kFloat16) return widen(as<Half>()[i]);
    return widen(as<BFloat16>()[i]);
  }

 private:
  template <typename T>
  void put(int64_t i, T x) {
    std::memcpy(at(i), &x, sizeof(x));
  }
};

using Arrays = std::vector<Array>;

// Largest difference in units of the largest number; infinite where only one of two is finite.
inline double distance(Array& a, Array& b) {
  double most = 0, worst = 0;
  for (int64_t i = 0; i < a.size; ++i) most = std::fmax(most, std::fabs(a.get(i)));
  for (int64_t i = 0; i < a.size; ++i) {
    const double x = a.get(i), y = b.get(i);
    if (std::isfinite(x) != std::isfinite(y)) return INFINITY;
    if (std::isfinite(x)) worst = std::fmax(worst, std::fabs(x - y));
  }
  for (const Array* x : {&a, &b}) {
    const auto end = x->bytes.begin() + x->size * size_of(x->dtype);
    if (!std::all_of(end, x->bytes.end(), [](uint8_t byte) { return byte == 0xFF; })) {
      return INFINITY;
    }
  }
  return worst == 0 ? 0 : worst / most;
}

inline void compare(const std::string& name, Arrays a, Arrays b, double steps) {
  for (size_t i = 0; i < a.size(); ++i) {
    const double found = distance(a[i], b[i]), allowed = steps * step(a[i].dtype);
    ++checks;
    if (found <= allowed) continue;
    ++differ;
    std::printf("%s, output %zu: %.2e, allowed %.2e\n", name.c_str(), i, found, allowed);
  }
}

inline void both(const std::string& name, double steps, const std::function<Arrays()>& run) {
  cpu::use_instruction_set(InstructionSet::kBase);
  const Arrays base = run();
  cpu::use_instruction_set(InstructionSet::kAvx512);
  compare(name, base, run(), steps);
}

inline std::string label(const char* what, Dtype a, Dtype b, int64_t width) {
  constexpr const char* names[] = {"fp16", "bf16", "fp32", "fp64"};
  return std::string(what) + " " + names[static_cast<int>(a)] + " " + names[static_cast<int>(b)] +
         " " + std::to_string(width);
}

}  // namespace emulated
