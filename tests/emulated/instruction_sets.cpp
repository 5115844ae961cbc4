// Every operator of csrc/cpu in AVX-512 beside the base set, and the products of bfloat16 pairs
// beside the emulated ones. `instruction_sets [SECTION...]`; not one check may differ.
#include "bank.h"
#include "compare.h"
#include "cpu/threads.h"
#include "kernels.h"
#include "momentum.h"
#include "nce.h"
#include "sections.h"
#include "sinkhorn.h"
#include "soft_cross_entropy.h"

namespace fastcl::cpu {  // in place of cpu/threads.cpp, which asks torch

int thread_count() { return 1; }
void parallel(int64_t workers, const std::function<void(int64_t)>& work) {
  for (int64_t i = 0; i < workers; ++i) work(i);
}

}  // namespace fastcl::cpu

namespace emulated {
namespace {

using cpu::PairProducts;

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

int run(int count, char** names) {
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

}  // namespace
}  // namespace emulated

int main(int count, char** names) { return emulated::run(count, names); }
