// The contrasts, and their products of bfloat16 pairs.
#include <algorithm>
#include <array>

#include "compare.h"
#include "cpu/pairs.h"
#include "kernels.h"
#include "sections.h"

namespace emulated {
namespace {

using cpu::PairProducts;

enum class Kind { kBoth, kRows, kSelf, kGuided };

// A softmax contrast: its forward, its backward, and both at once; and the sigmoid contrast.
template <typename T>
struct Contrast {
  Kind kind;
  Dtype dtype, out = accumulator(dtype);
  int64_t n, m, d;
  double scale;
  bool unit;
  Array q, k, own, pivot, grad;
  std::vector<int64_t> ids;
  std::vector<double> limits;

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
        own(Array::random(dtype, n * d, 1 / std::sqrt(d))),
        pivot(Array::random(out, n, 0.5)),
        grad(Array::random(out, n + m)) {
    for (int64_t i = 0; i < std::max(n, m); ++i) ids.push_back(i / 2);
    for (int64_t i = 0; i < n; ++i) limits.push_back(0.1 * static_cast<double>(i % 5));
  }

  // own: of the kind whose rows have no positive among the columns.
  Problem problem(bool divided) {
    const bool self = kind == Kind::kSelf, one = kind == Kind::kRows || kind == Kind::kGuided;
    const int64_t* codes = one ? nullptr : ids.data();
    const int64_t half = n / 2;  // rows do not lie end to end
    Problem x{};
    x.dtype = dtype;
    x.q = Rows{{{q.at(half * d), n - half}, {q.at(0), half}}};
    x.k = self ? x.q : Rows{{{k.at(0), m}}};
    if (one) x.own = Rows{{{own.at(0), n}}};
    x.n = n, x.m = m, x.d = d, x.scale = scale;
    x.row_ids = codes, x.col_ids = codes;
    x.symmetric = self;
    x.both = kind == Kind::kBoth;
    x.positives_in = x.paired = true;
    if (kind == Kind::kGuided) {
      x.limit = limits.data();
      x.row_weight = limits.data();
      x.guide_dtype = dtype;
      x.guide_q = Rows{{{k.at(0), 1}, {q.at(d), n - 1}}};
      x.guide_k = x.k;
      x.guide_d = d;
    }
    x.unit = unit || divided;
    x.normalize_q = x.normalize_k = x.normalize_own = divided;
    return x;
  }

  Arrays forward_and_backward() {
    const bool columns = kind == Kind::kBoth, one = kind == Kind::kRows || kind == Kind::kGuided;
    const bool self = kind == Kind::kSelf;
    const Problem x = problem(false);
    Array rows(out, 4 * n), cols(out, 4 * m), weighted(out, n * d), dq(out, n * d), dk(out, m * d),
        d_own(out, n * d);
    std::vector<int64_t> ranks(n);
    double slope = 0;
    cpu::contrast_forward<T>({x, columns ? nullptr : pivot.as<T>(), rows.as<T>(),
                              columns ? cols.as<T>() : nullptr, columns ? nullptr : ranks.data(),
                              one ? weighted.as<T>() : nullptr});
    cpu::contrast_backward<T>(
        {x,
         rows.as<T>(),
         columns ? cols.as<T>() : nullptr,
         nullptr,
         grad.as<T>(),
         nullptr,
         columns ? grad.as<T>() + n : nullptr,
         nullptr,
         {dq.as<T>(), self ? nullptr : dk.as<T>(), one ? d_own.as<T>() : nullptr, &slope}});
    Array rank(Dtype::kFloat64, n), loss(out, n);
    for (int64_t i = 0; i < n; ++i) rank.set(i, ranks[i]), loss.set(i, rows.get(i));
    Arrays found{loss, dq};
    if (!self) found.push_back(dk);
    if (!columns) found.push_back(rank);
    if (!one) return found;
    found.push_back(weighted);
    found.push_back(d_own);
    Array finished(out, n * d);
    cpu::contrast_backward<T>({x,
                               rows.as<T>(),
                               nullptr,
                               weighted.as<T>(),
                               grad.as<T>(),
                               nullptr,
                               nullptr,
                               nullptr,
                               {finished.as<T>(), nullptr, nullptr, nullptr}});
    found.push_back(finished);
    return found;
  }

  Arrays mean() {
    Array losses(out, n), dq(out, n * d), dk(out, m * d), d_own(out, n * d), all(out, 2);
    double loss = 0, slope = 0;
    const bool self = kind == Kind::kSelf, one = kind == Kind::kRows || kind == Kind::kGuided;
    cpu::contrast_mean<T>(
        {problem(true),
         losses.as<T>(),
         &loss,
         {dq.as<T>(), self ? nullptr : dk.as<T>(), one ? d_own.as<T>() : nullptr, &slope}});
    all.set(0, loss), all.set(1, 0);
    Arrays found{all, losses, dq};
    if (!self) found.push_back(dk);
    if (one) found.push_back(d_own);
    return found;
  }

  Arrays sigmoid() {
    Array dq(out, n * d), dk(out, m * d), all(out, 1);
    double sums[3];
    cpu::sigmoid_contrast<T>({problem(false), -3, dq.as<T>(), dk.as<T>(), sums});
    all.set(0, sums[0]);
    return {all, dq, dk};
  }

  // Runs f(name, run of it).
  template <typename F>
  void each(const F& f) {
    constexpr const char* names[] = {"both sides", "rows", "self", "guided rows"};
    const std::string name = label(names[static_cast<int>(kind)], dtype, dtype, n);
    f(name + " forward and backward", [&] { return forward_and_backward(); });
    f(name + " mean", [&] { return mean(); });
    if (kind == Kind::kBoth) f(name + " sigmoid", [&] { return sigmoid(); });
  }
};

template <typename T>
void contrasts_of(Dtype dtype) {
  for (Kind kind : {Kind::kBoth, Kind::kRows, Kind::kSelf, Kind::kGuided}) {
    for (const auto [n, m, d] : {std::array<int64_t, 3>{2, 3, 5}, {17, 33, 24}, {70, 150, 40}}) {
      // Where the shift of all cannot be one, it is the running maximum. The exponential of a
      // logit loses as many steps as the logit is large.
      for (double scale : {10.0, sizeof(T) == 4 ? 300.0 : 3000.0}) {
        Contrast<T> contrast(kind, dtype, n, m, d, scale, scale == 10);
        contrast.each(
            [&](const std::string& name, const auto& run) { both(name, 4 * scale + 100, run); });
      }
    }
  }
}

// Random pairs, zero where the depth of pair i lies beyond them.
void fill_pairs(Array& x, const std::function<int64_t(int64_t)>& depth, int64_t pairs) {
  const Array numbers = Array::random(x.dtype, x.size);
  x = numbers;
  for (int64_t i = 0; i < x.size; ++i) {
    if (depth(i / 2) >= pairs) x.set(i, 0);
  }
}

}  // namespace

void contrasts() {
  contrasts_of<float>(Dtype::kFloat32);
  contrasts_of<float>(Dtype::kFloat16);
  contrasts_of<double>(Dtype::kFloat64);
}

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
  for (Kind kind : {Kind::kBoth, Kind::kRows, Kind::kSelf, Kind::kGuided}) {
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

}  // namespace emulated
