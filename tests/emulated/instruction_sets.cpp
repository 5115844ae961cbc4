// Every operator of csrc/cpu in AVX-512 beside the base set, and the products of bfloat16 pairs
// beside the emulated ones. `instruction_sets [SECTION...]`; not one check may differ.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "bank.h"
#include "cpu/float16.h"
#include "cpu/instruction_set.h"
#include "cpu/pairs.h"
#include "cpu/threads.h"
#include "kernels.h"
#include "momentum.h"
#include "nce.h"
#include "sinkhorn.h"
#include "soft_cross_entropy.h"

void emulate_missing_instructions();

namespace fastcl::cpu {  // in place of cpu/threads.cpp, which asks torch

int thread_count() { return 1; }
void parallel(int64_t workers, const std::function<void(int64_t)>& work) {
  for (int64_t i = 0; i < workers; ++i) work(i);
}

}  // namespace fastcl::cpu

namespace {

using namespace fastcl;
using cpu::InstructionSet;
using cpu::PairProducts;

constexpr Dtype kAll[] = {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32, Dtype::kFloat64};

int checks, differ;
std::mt19937 generator(1);

double step(Dtype dtype) {  // between one and the next number
  if (dtype == Dtype::kFloat64) return 0x1p-52;
  return dtype == Dtype::kFloat32 ? 0x1p-23 : dtype == Dtype::kFloat16 ? 0x1p-10 : 0x1p-7;
}
Dtype accumulator(Dtype dtype) { return dtype == Dtype::kFloat64 ? dtype : Dtype::kFloat32; }

// Numbers of a dtype, with 64 more behind them that no kernel may change.
struct Array {
  Dtype dtype;
  int64_t size;
  std::vector<uint8_t> bytes;

  Array(Dtype dtype, int64_t size)
      : dtype(dtype), size(size), bytes((size + 64) * size_of(dtype), 0xFF) {}

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
double distance(Array& a, Array& b) {
  double most = 0, worst = 0;
  for (int64_t i = 0; i < a.size; ++i) most = std::fmax(most, std::fabs(a.get(i)));
  for (int64_t i = 0; i < a.size; ++i) {
    const double x = a.get(i), y = b.get(i);
    if (std::isfinite(x) != std::isfinite(y)) return INFINITY;
    if (std::isfinite(x)) worst = std::fmax(worst, std::fabs(x - y));
  }
  const size_t end = a.size * size_of(a.dtype);
  if (!std::equal(a.bytes.begin() + end, a.bytes.end(), b.bytes.begin() + end)) return INFINITY;
  return worst == 0 ? 0 : worst / most;
}

void compare(const std::string& name, Arrays a, Arrays b, double steps) {
  for (size_t i = 0; i < a.size(); ++i) {
    const double found = distance(a[i], b[i]), allowed = steps * step(a[i].dtype);
    ++checks;
    if (found <= allowed) continue;
    ++differ;
    std::printf("%s, output %zu: %.2e, allowed %.2e\n", name.c_str(), i, found, allowed);
  }
}

void both(const std::string& name, double steps, const std::function<Arrays()>& run) {
  cpu::use_instruction_set(InstructionSet::kBase);
  const Arrays base = run();
  cpu::use_instruction_set(InstructionSet::kAvx512);
  compare(name, base, run(), steps);
}

std::string label(const char* what, Dtype a, Dtype b, int64_t width) {
  constexpr const char* names[] = {"fp16", "bf16", "fp32", "fp64"};
  return std::string(what) + " " + names[static_cast<int>(a)] + " " + names[static_cast<int>(b)] +
         " " + std::to_string(width);
}

void bank() {
  for (Dtype into : kAll) {
    for (Dtype from : kAll) {
      for (int64_t d : {1, 37, 128}) {
        const int64_t n = 9, b = 5;
        Array start = Array::random(into, n * d), x = Array::random(from, b * d);
        const int64_t index[] = {7, 0, 3, 8, 4}, chosen[] = {0, 1, 2, 3, 4};
        both(label("bank", into, from, d), 4, [&] {
          Array rows = start;
          bank_update_cpu({rows.at(0), x.at(0), index, into, from, n, b, d, 0.5}, chosen, 0, b);
          return Arrays{rows};
        });
      }
    }
  }
}

void nce() {
  for (Dtype rows : kAll) {
    for (Dtype bank_dtype : kAll) {
      const int64_t b = 3, n = 50, d = 37, columns = 70;
      const Dtype out = accumulator(rows);
      Array x = Array::random(rows, b * d), bank = Array::random(bank_dtype, n * d),
            offset = Array::random(out, n);
      std::vector<int64_t> index(b * columns);
      for (int64_t& i : index) i = generator() % n;
      both(label("nce", rows, bank_dtype, d), 256, [&] {
        Array loss(out, b), dx(out, b * d);
        nce_cpu({x.at(0), bank.at(0), index.data(), offset.at(0), rows, bank_dtype, b, n, d,
                 columns, 5, -2, loss.at(0), dx.at(0)},
                0, b);
        return Arrays{loss, dx};
      });
    }
  }
}

void sinkhorn() {
  for (Dtype dtype : kAll) {
    for (int64_t m : {1, 15, 70}) {
      const int64_t n = 21, r = 6;
      const Dtype out = accumulator(dtype);
      Array scores = Array::random(dtype, n * m), older = Array::random(dtype, r * m),
            potential = Array::random(out, m);
      // In the log domain where the sums span too much.
      for (double scale : {20.0, 3000.0}) {
        both(label("sinkhorn", dtype, dtype, m), 4096, [&] {
          Array q(out, n * m);
          sinkhorn_cpu(
              {scores.at(0), older.at(0), nullptr, dtype, n, r, m, scale, nullptr, q.at(0)}, 3);
          return Arrays{q};
        });
      }
      both(label("sinkhorn passes", dtype, dtype, m), 512, [&] {
        Array first(out, m), second(out, m), q(out, n * m);
        sinkhorn_cpu({scores.at(0), older.at(0), nullptr, dtype, n, r, m, 9, first.at(0), nullptr});
        sinkhorn_cpu(
            {scores.at(0), nullptr, potential.at(0), dtype, n, 0, m, 9, second.at(0), nullptr});
        sinkhorn_cpu({scores.at(0), nullptr, potential.at(0), dtype, n, 0, m, 9, nullptr, q.at(0)});
        return Arrays{first, second, q};
      });
    }
  }
}

void soft_cross_entropy() {
  for (Dtype dtype : kAll) {
    for (Dtype target_dtype : {dtype, accumulator(dtype)}) {
      for (int64_t m : {1, 15, 70}) {
        const int64_t n = 7;
        Array scores = Array::random(dtype, n * m),
              target = Array::random(target_dtype, n * m, 1, 0);
        both(label("soft_cross_entropy", dtype, target_dtype, m), 256, [&] {
          Array losses(Dtype::kFloat64, n), grad(dtype, n * m);
          soft_cross_entropy_cpu({scores.at(0), target.at(0), dtype, target_dtype, m, 10, 0.5,
                                  losses.as<double>(), grad.at(0)},
                                 0, n);
          Array narrow(accumulator(dtype), n);  // its sums have that precision
          for (int64_t i = 0; i < n; ++i) narrow.set(i, losses.get(i));
          return Arrays{narrow, grad};
        });
      }
    }
  }
}

void momentum() {  // the same bits
  for (Dtype into : kAll) {
    for (Dtype from : kAll) {
      for (double momentum : {0.0, 0.3, 0.99}) {
        for (bool seeded : {false, true}) {
          const int64_t n = 1003, seed = 5;
          Array start = Array::random(into, n), online = Array::random(from, n);
          both(label("momentum", into, from, n), 0, [&] {
            Array target = start;
            momentum_update_cpu({target.at(0), online.at(0), n, into, from}, 0, momentum,
                                seeded ? &seed : nullptr, 3);
            return Arrays{target};
          });
        }
      }
    }
  }
}

template <typename T>
void unit_rows_of(Dtype dtype) {
  const Dtype out = accumulator(dtype);
  for (int64_t d : {1, 37, 128}) {
    const int64_t n = 5;
    Array x = Array::random(dtype, n * d), grad = Array::random(dtype, n * d),
          wide = Array::random(out, n * d);
    both(label("unit_rows", dtype, dtype, d), 16, [&] {
      Array y(dtype, n * d), lengths(out, n), again(out, n), dx(dtype, n * d),
          dz = wide, dot(Dtype::kFloat64, 1);
      const Rows rows{{{x.at(0), 2}, {x.at(2 * d), n - 2}}};
      cpu::unit_rows<T>(dtype, x.at(0), n, d, y.at(0), lengths.as<T>());
      cpu::unit_rows_gradient<T>(dtype, grad.at(0), x.at(0), lengths.as<T>(), n, d, dx.at(0));
      cpu::row_lengths<T>(dtype, rows, d, again.as<T>());
      Array sum(out, 1);
      sum.set(0, cpu::project<T>(dtype, rows, lengths.as<T>(), d, dz.as<T>()));
      // At width one every gradient is zero but for rounding.
      return d == 1 ? Arrays{y, lengths, again, sum} : Arrays{y, lengths, again, dx, dz, sum};
    });
  }
}

void unit_rows() {
  for (Dtype dtype : kAll) {
    dtype == Dtype::kFloat64 ? unit_rows_of<double>(dtype) : unit_rows_of<float>(dtype);
  }
}

enum class Kind { kBoth, kRows, kSelf };

// A softmax contrast: its forward, its backward, and both at once; and the sigmoid contrast.
template <typename T>
struct Contrast {
  Kind kind;
  Dtype dtype, out = accumulator(dtype);
  int64_t n, m, d;
  double scale;
  bool unit;
  Array q, k, extra, pivot, grad;
  std::vector<int64_t> ids;

  Contrast(Kind kind, Dtype dtype, int64_t n, int64_t columns, int64_t d, double scale, bool unit)
      : kind(kind),
        dtype(dtype),
        n(n),
        m(kind == Kind::kSelf ? n : columns),
        d(d),
        scale(scale),
        unit(unit),
        q(Array::random(dtype, n * d, 1 / std::sqrt(d))),
        k(Array::random(dtype, m * d, 1 / std::sqrt(d))),
        extra(Array::random(out, n)),
        pivot(Array::random(out, n, 0.5)),
        grad(Array::random(out, n + m)) {
    for (int64_t i = 0; i < std::max(n, m); ++i) ids.push_back(i / 2);
  }

  InfoNce problem(const T* q_lengths, const T* k_lengths) {
    const bool self = kind == Kind::kSelf;
    const int64_t* codes = kind == Kind::kRows ? nullptr : ids.data();
    Array& columns = self ? q : k;
    return {dtype,
            {{{q.at(0), n}}},
            {{{columns.at(0), m}}},
            q_lengths,
            k_lengths,
            n,
            m,
            d,
            scale,
            codes,
            codes,
            self,
            true,
            unit};
  }

  Arrays forward_and_backward() {
    const bool columns = kind == Kind::kBoth, one = kind == Kind::kRows;
    const InfoNce x = problem(nullptr, nullptr);
    Array rows(out, 4 * n), cols(out, 4 * m), weighted(out, n * d), dq(out, n * d), dk(out, m * d);
    std::vector<int64_t> ranks(n);
    cpu::info_nce_forward<T>({x, one ? extra.as<T>() : nullptr, columns ? nullptr : pivot.as<T>(),
                              rows.as<T>(), columns ? cols.as<T>() : nullptr,
                              columns ? nullptr : ranks.data(), one ? weighted.as<T>() : nullptr});
    cpu::info_nce_backward<T>({x, grad.as<T>(), nullptr, columns ? grad.as<T>() + n : nullptr,
                               nullptr, rows.as<T>(), columns ? cols.as<T>() : nullptr, one,
                               dq.as<T>(), kind == Kind::kSelf ? nullptr : dk.as<T>(), nullptr});
    Array rank(Dtype::kFloat64, n), loss(out, n);
    for (int64_t i = 0; i < n; ++i) rank.set(i, ranks[i]), loss.set(i, rows.get(i));
    Arrays found{loss, dq};
    if (kind != Kind::kSelf) found.push_back(dk);
    if (!columns) found.push_back(rank);
    if (one) found.push_back(weighted);
    return found;
  }

  Arrays mean() {
    Array q_lengths(out, n), k_lengths(out, m), rows(out, 4 * n), cols(out, 4 * m), dq(out, n * d),
        dk(out, m * d), all(out, 2);
    double loss = 0, dot = 0;
    InfoNce x = problem(q_lengths.as<T>(), k_lengths.as<T>());
    cpu::row_lengths<T>(dtype, x.q, d, q_lengths.as<T>());
    cpu::row_lengths<T>(dtype, x.k, d, k_lengths.as<T>());
    x.unit = true;
    if (kind == Kind::kSelf) {
      x.k_lengths = x.q_lengths;
      cpu::self_contrast_mean<T>({x, rows.as<T>(), dq.as<T>(), &loss});
    } else {
      cpu::info_nce_mean<T>({x, kind == Kind::kRows ? extra.as<T>() : nullptr, rows.as<T>(),
                             kind == Kind::kBoth ? cols.as<T>() : nullptr, dq.as<T>(), dk.as<T>(),
                             &loss, &dot});
    }
    all.set(0, loss), all.set(1, 0);
    return kind == Kind::kSelf ? Arrays{all, dq} : Arrays{all, dq, dk};
  }

  Arrays sigmoid() {
    Array dq(out, n * d), dk(out, m * d), all(out, 1);
    double sums[3];
    cpu::sigmoid_contrast<T>({problem(nullptr, nullptr), -3, dq.as<T>(), dk.as<T>(), sums});
    all.set(0, sums[0]);
    return {all, dq, dk};
  }

  // Runs f(name, run of it).
  template <typename F>
  void each(const F& f) {
    constexpr const char* names[] = {"both sides", "rows", "self"};
    const std::string name = label(names[static_cast<int>(kind)], dtype, dtype, n);
    f(name + " forward and backward", [&] { return forward_and_backward(); });
    f(name + " mean", [&] { return mean(); });
    if (kind == Kind::kBoth) f(name + " sigmoid", [&] { return sigmoid(); });
  }
};

template <typename T>
void contrasts_of(Dtype dtype) {
  for (Kind kind : {Kind::kBoth, Kind::kRows, Kind::kSelf}) {
    for (const auto [n, m, d] : {std::array<int64_t, 3>{2, 3, 1}, {17, 33, 24}, {70, 150, 40}}) {
      for (bool unit : {true, false}) {  // false: the shift is the running maximum
        Contrast<T> contrast(kind, dtype, n, m, d, unit ? 10 : 300, unit);
        // 1,000 steps: logits of 300 lose as much of each exponential.
        contrast.each([](const std::string& name, const auto& run) { both(name, 1000, run); });
      }
    }
  }
}

void contrasts() {
  contrasts_of<float>(Dtype::kFloat32);
  contrasts_of<float>(Dtype::kFloat16);
  contrasts_of<double>(Dtype::kFloat64);
}

// Random pairs, zero where the depth of pair i lies beyond them.
void fill_pairs(Array& x, const std::function<int64_t(int64_t)>& depth, int64_t pairs) {
  const Array numbers = Array::random(x.dtype, x.size);
  x = numbers;
  for (int64_t i = 0; i < x.size; ++i) {
    if (depth(i / 2) >= pairs) x.set(i, 0);
  }
}

// One product of pairs, and the contrasts over bfloat16 rows, by each kind of product.
void pairs_by(PairProducts wanted) {
  for (const auto [rows, pairs, width] :
       {std::array<int64_t, 3>{1, 1, 1}, {31, 15, 33}, {32, 16, 32}, {65, 40, 70}, {64, 64, 96}}) {
    const int64_t depth = cpu::whole_squares(pairs), columns = (width + 31) / 32 * cpu::kPanel;
    Array a(Dtype::kBFloat16, 2 * cpu::whole_squares(rows) * depth),
        b(Dtype::kBFloat16, 2 * columns * depth);
    fill_pairs(
        a, [&](int64_t i) { return i / cpu::kSquare * cpu::kSide % depth + i % cpu::kSide; },
        pairs);
    fill_pairs(b, [&](int64_t i) { return i / cpu::kPanel % depth; }, pairs);
    Array factor = Array::random(Dtype::kFloat32, rows),
          col_factor = Array::random(Dtype::kFloat32, columns),
          start = Array::random(Dtype::kFloat32, rows * width);
    const auto run = [&](PairProducts products) {
      Array out = start;
      cpu::use_pair_products(products);
      cpu::pair_kernel()({a.as<uint32_t>(), rows, b.as<uint32_t>(), pairs, width,
                          factor.as<float>(), col_factor.as<float>(), out.as<float>(), width,
                          true});
      return Arrays{out};
    };
    compare("product of pairs", run(PairProducts::kEmulatedVectors), run(wanted), 64);
  }
  for (Kind kind : {Kind::kBoth, Kind::kRows, Kind::kSelf}) {
    Contrast<float> contrast(kind, Dtype::kBFloat16, 70, 150, 40, 10, true);
    contrast.each([&](const std::string& name, const auto& run) {
      cpu::use_instruction_set(InstructionSet::kBase);
      cpu::use_pair_products(PairProducts::kEmulatedVectors);
      const Arrays base = run();
      cpu::use_instruction_set(InstructionSet::kAvx512);
      cpu::use_pair_products(wanted);
      // Weights rounded to bfloat16, now and then to the other neighbour.
      compare(name, base, run(), step(Dtype::kBFloat16) / step(Dtype::kFloat32) / 16);
    });
  }
  cpu::use_pair_products(PairProducts::kWidened);
}

struct Section {
  const char* name;
  std::function<void()> run;
};

const Section kSections[] = {
    {"bank", bank},
    {"nce", nce},
    {"sinkhorn", sinkhorn},
    {"soft_cross_entropy", soft_cross_entropy},
    {"momentum", momentum},
    {"unit_rows", unit_rows},
    {"contrasts", contrasts},
    {"emulated", [] { pairs_by(PairProducts::kEmulatedMatrices); }},
    {"avx512bf16", [] { pairs_by(PairProducts::kAvx512Bf16); }},
    {"amx", [] { pairs_by(PairProducts::kAmx); }},
};

}  // namespace

int main(int count, char** names) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (!cpu::has(InstructionSet::kAvx512)) return std::puts("no AVX-512"), 2;
  if (!cpu::has(PairProducts::kAmx)) emulate_missing_instructions();
  cpu::use_pair_products(PairProducts::kWidened);
  int all = 0;
  for (const Section& section : kSections) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted = wanted || section.name == std::string(names[i]);
    if (!wanted) continue;
    checks = differ = 0;
    section.run();
    std::printf("section %s: %d checks, %d differ\n", section.name, checks, differ);
    all += differ;
  }
  return all != 0;
}
