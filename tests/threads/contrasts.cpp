// The kernels that share tiles out among threads themselves.
#include <memory>

#include "cpu/pairs.h"
#include "kernels.h"
#include "run.h"

namespace threads {
namespace {

// More blocks of rows and of columns than threads, the last of them odd.
constexpr int64_t kRows = 601, kColumns = 530, kWidth = 24;

enum class Kind { kBoth, kOwn, kSelf, kGuided };
constexpr const char* kNames[] = {"both sides", "own positives", "self", "guided"};

template <typename T>
struct Contrast {
  Kind kind;
  Dtype dtype, out = accumulator(dtype);
  int64_t n = kRows, m = kind == Kind::kSelf ? kRows : kind == Kind::kBoth ? kRows : kColumns;
  Array q = Array::random(dtype, n* kWidth), k = Array::random(dtype, m* kWidth),
        own = Array::random(dtype, n* kWidth), grad = Array::random(out, n + m);
  Array pivot = Array::random(out, n);
  std::vector<int64_t> row_ids, col_ids;
  std::vector<double> limits;

  Contrast(Kind kind, Dtype dtype) : kind(kind), dtype(dtype), row_ids(n), col_ids(m), limits(n) {
    for (int64_t i = 0; i < n; ++i) row_ids[i] = i / 2;
    for (int64_t j = 0; j < m; ++j) col_ids[j] = j / 2;
    for (int64_t i = 0; i < n; ++i) limits[i] = 0.1 * static_cast<double>(i % 5);
  }

  bool single() const { return kind == Kind::kOwn || kind == Kind::kGuided; }

  Problem problem(double scale) {
    Problem x{};
    x.dtype = dtype;
    x.q = Rows{{{q.at(0), 200}, {q.at(200 * kWidth), n - 200}}};
    x.k = kind == Kind::kSelf ? x.q : Rows{{{k.at(0), m}}};
    if (single()) x.own = Rows{{{own.at(0), n}}};
    x.n = n, x.m = m, x.d = kWidth, x.scale = scale;
    x.row_ids = single() ? nullptr : row_ids.data();
    x.col_ids = single() ? nullptr : kind == Kind::kSelf ? row_ids.data() : col_ids.data();
    x.symmetric = kind == Kind::kSelf;
    x.both = kind == Kind::kBoth;
    x.positives_in = x.paired = x.unit = true;
    x.normalize_q = x.normalize_k = x.normalize_own = true;
    if (kind == Kind::kGuided) {
      x.limit = x.row_weight = limits.data();
      x.guide_dtype = dtype, x.guide_d = kWidth;
      x.guide_q = x.q, x.guide_k = x.k;
    }
    return x;
  }

  Arrays rows(double scale) {
    const Problem x = problem(scale);
    const bool columns = x.both, self = x.symmetric;
    Array rows(out, 4 * n), cols(out, 4 * m), weighted(out, n * kWidth), dq(out, n * kWidth),
        dk(out, m * kWidth), d_own(out, n * kWidth), slopes(Dtype::kFloat64, 1);
    std::vector<int64_t> ranks(n);
    cpu::contrast_forward<T>({x, columns ? nullptr : pivot.as<T>(), rows.as<T>(),
                              columns ? cols.as<T>() : nullptr, columns ? nullptr : ranks.data(),
                              single() ? weighted.as<T>() : nullptr});
    cpu::contrast_backward<T>({x,
                               rows.as<T>(),
                               columns ? cols.as<T>() : nullptr,
                               nullptr,
                               grad.as<T>(),
                               nullptr,
                               columns ? grad.as<T>() + n : nullptr,
                               nullptr,
                               {dq.as<T>(), self ? nullptr : dk.as<T>(),
                                single() ? d_own.as<T>() : nullptr, slopes.as<double>()}});
    return {rows, cols, weighted, dq, dk, d_own, slopes};
  }

  Arrays mean(double scale) {
    Array losses(out, n), dq(out, n * kWidth), dk(out, m * kWidth), d_own(out, n * kWidth),
        sums(Dtype::kFloat64, 2);
    cpu::contrast_mean<T>({problem(scale),
                           losses.as<T>(),
                           sums.as<double>(),
                           {dq.as<T>(), kind == Kind::kSelf ? nullptr : dk.as<T>(),
                            single() ? d_own.as<T>() : nullptr, sums.as<double>() + 1}});
    return {losses, dq, dk, d_own, sums};
  }

  Arrays sigmoid() {
    Array dq(out, n * kWidth), dk(out, m * kWidth), sums(Dtype::kFloat64, 3);
    cpu::sigmoid_contrast<T>({problem(10), -3, dq.as<T>(), dk.as<T>(), sums.as<double>()});
    return {dq, dk, sums};
  }
};

template <typename T>
void contrasts_of(Dtype dtype, const char* products) {
  for (Kind kind : {Kind::kBoth, Kind::kOwn, Kind::kSelf, Kind::kGuided}) {
    Contrast<T> x(kind, dtype);
    const std::string name = label(kNames[static_cast<int>(kind)], dtype, dtype, kWidth) + products;
    // One shift for all logits, and the running maximum.
    for (double scale : {10.0, sizeof(T) == 4 ? 300.0 : 3000.0}) {
      under_threads(name + " rows", [&] { return x.rows(scale); });
      under_threads(name + " mean", [&] { return x.mean(scale); });
    }
    if (kind == Kind::kBoth) under_threads(name + " sigmoid", [&] { return x.sigmoid(); });
  }
}

template <typename T>
void nested_of(Dtype dtype) {
  const Dtype out = accumulator(dtype);
  Array q = Array::random(dtype, kRows * kWidth), k = Array::random(dtype, kRows * kWidth);
  under_threads(label("nested", dtype, dtype, kWidth), [&] {
    Array dq(out, kRows * kWidth), dk(out, kRows * kWidth), sums(Dtype::kFloat64, 2);
    cpu::nested_contrast_mean<T>({dtype,
                                  q.at(0),
                                  k.at(0),
                                  kRows,
                                  kWidth,
                                  {3, 16, kWidth},
                                  {1, 0.5, 2},
                                  10,
                                  sums.as<double>(),
                                  dq.as<T>(),
                                  dk.as<T>(),
                                  sums.as<double>() + 1});
    return Arrays{dq, dk, sums};
  });
}

template <typename T>
void max_sim_of(Dtype dtype) {
  constexpr int64_t n = 30, query = 9, document = 17;
  const Dtype out = accumulator(dtype);
  Array q = Array::random(dtype, n * query * kWidth),
        k = Array::random(dtype, n * document * kWidth),
        hard = Array::random(dtype, 2 * n * document * kWidth);
  const auto there = [](int64_t tokens) {  // the last one is
    std::unique_ptr<bool[]> mask(new bool[tokens]);
    for (int64_t i = 0; i < tokens; ++i) mask[i] = (tokens - 1 - i) % 5 != 2;
    return mask;
  };
  const auto of_q = there(n * query), of_k = there(n * document), of_hard = there(2 * n * document);
  for (bool masked : {false, true}) {
    under_threads(label("max_sim", dtype, dtype, kWidth), [&] {
      Array dq(out, q.size), dk(out, k.size), d_hard(out, hard.size), sums(Dtype::kFloat64, 2);
      cpu::max_sim_mean<T>({dtype,
                            {q.at(0), masked ? of_q.get() : nullptr, n, query},
                            {k.at(0), masked ? of_k.get() : nullptr, n, document},
                            {hard.at(0), masked ? of_hard.get() : nullptr, 2 * n, document},
                            kWidth,
                            10,
                            true,
                            sums.as<double>(),
                            dq.as<T>(),
                            dk.as<T>(),
                            d_hard.as<T>(),
                            sums.as<double>() + 1});
      return Arrays{dq, dk, d_hard, sums};
    });
  }
}

template <typename T>
void product_of(Dtype dtype) {
  constexpr int64_t n = 300, c = 70, d = 100;
  Array a = Array::random(dtype, n * c), b = Array::random(dtype, c * d);
  for (bool turned : {false, true}) {
    under_threads(label("product", dtype, dtype, d), [&] {
      Array y(dtype, n * d);
      cpu::product<T>({a.as<T>(), b.as<T>(), y.as<T>(), n, c, d, turned, !turned});
      return Arrays{y};
    });
  }
}

}  // namespace

void contrasts() {
  contrasts_of<float>(Dtype::kFloat32, "");
  contrasts_of<double>(Dtype::kFloat64, "");
  for (auto products : {cpu::PairProducts::kWidened, cpu::best_pair_products()}) {
    cpu::use_pair_products(products);
    contrasts_of<float>(Dtype::kBFloat16,
                        products == cpu::PairProducts::kWidened ? " widened" : " pairs");
  }
  nested_of<float>(Dtype::kFloat32);
  nested_of<float>(Dtype::kBFloat16);
  nested_of<double>(Dtype::kFloat64);
  max_sim_of<float>(Dtype::kFloat32);
  max_sim_of<float>(Dtype::kBFloat16);
  max_sim_of<double>(Dtype::kFloat64);
  product_of<float>(Dtype::kFloat32);
  product_of<double>(Dtype::kFloat64);
}

}  // namespace threads
