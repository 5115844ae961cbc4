// Every kernel of csrc/cpu by several threads, without torch, for ThreadSanitizer: `make sanitize`.
// With an argument a fault is planted, which the sanitizers must report.
#include <algorithm>
#include <array>
#include <cstdlib>

#include "bank.h"
#include "kernels.h"
#include "momentum.h"
#include "nce.h"
#include "queue.h"
#include "run.h"
#include "sinkhorn.h"
#include "soft_cross_entropy.h"

namespace threads {
namespace {

// Of widths one ends within a vector and one with it.
constexpr int64_t kRows = 203, kWidths[] = {37, 48};

void bank_and_queue(Dtype dtype, int64_t width) {
  Array start = Array::random(dtype, kRows * width), x = Array::random(dtype, kRows * width);
  std::vector<int64_t> index(kRows), chosen(kRows);
  for (int64_t i = 0; i < kRows; ++i) index[i] = kRows - 1 - i, chosen[i] = i;
  under_threads(label("bank", dtype, dtype, width), [&] {
    Array bank = start;
    const BankUpdate update{bank.at(0), x.at(0), index.data(), dtype, dtype,
                            kRows,      kRows,   width,        0.5};
    in_parts(kRows, [&](int64_t a, int64_t b) { bank_update_cpu(update, chosen.data(), a, b); });
    return Arrays{bank};
  });
  under_threads(label("queue", dtype, dtype, width), [&] {
    Array queue = start;
    int64_t pointer = 0;
    QueuePush push{queue.at(0), &pointer, x.at(0), dtype, dtype, kRows, width, kRows, kRows, false};
    in_parts(kRows * width, [&](int64_t a, int64_t b) { queue_push_cpu(push, 11, a, b); });
    push.normalize = true;
    in_parts(kRows / 2, [&](int64_t a, int64_t b) { queue_push_unit_cpu(push, 150, a, b); });
    return Arrays{queue};
  });
}

void nce(Dtype dtype, int64_t width) {
  constexpr int64_t columns = 40;
  const Dtype out = accumulator(dtype);
  Array x = Array::random(dtype, kRows * width), bank = Array::random(dtype, kRows * width);
  Array offset = Array::random(out, kRows);
  std::vector<int64_t> index(kRows * columns);
  for (int64_t& i : index) i = static_cast<int64_t>(generator() % kRows);
  under_threads(label("nce", dtype, dtype, width), [&] {
    Array loss(out, kRows), dx(out, kRows * width);
    const Nce problem{x.at(0), bank.at(0), index.data(), offset.at(0), dtype,
                      dtype,   kRows,      kRows,        width,        columns,
                      5,       -2,         loss.at(0),   dx.at(0)};
    in_parts(kRows, [&](int64_t a, int64_t b) { nce_cpu(problem, a, b); });
    return Arrays{loss, dx};
  });
}

void scores(Dtype dtype, int64_t m) {
  const Dtype out = accumulator(dtype);
  Array s = Array::random(dtype, kRows * m), target = Array::random(dtype, kRows * m, 1, 0);
  under_threads(label("soft_cross_entropy", dtype, dtype, m), [&] {
    Array losses(Dtype::kFloat64, kRows), grad(dtype, kRows * m);
    const SoftCrossEntropy x{s.at(0), target.at(0),        dtype,     dtype, m, 10,
                             0.5,     losses.as<double>(), grad.at(0)};
    in_parts(kRows, [&](int64_t a, int64_t b) { soft_cross_entropy_cpu(x, a, b); });
    return Arrays{losses, grad};
  });
  for (double scale : {20.0, 3000.0}) {  // in the log domain where the sums span too much
    under_threads(label("sinkhorn", dtype, dtype, m), [&] {
      Array q(out, kRows * m);
      sinkhorn_cpu(
          {s.at(0), target.at(0), nullptr, dtype, kRows, kRows, m, scale, nullptr, q.at(0)}, 3);
      return Arrays{q};
    });
  }
}

void momentum(Dtype dtype) {
  constexpr int64_t n = 5 * kMomentumChunk + 3, seed = 5;
  Array start = Array::random(dtype, n), online = Array::random(dtype, n);
  under_threads(label("momentum", dtype, dtype, n), [&] {
    Array target = start;
    const MomentumPair pair{target.at(0), online.at(0), n, dtype, dtype};
    in_parts(6, [&](int64_t a, int64_t b) {
      for (int64_t i = a; i < b; ++i) momentum_update_cpu(pair, i * kMomentumChunk, 0.9, &seed, 3);
    });
    return Arrays{target};
  });
}

template <typename T>
void unit_rows_of(Dtype dtype, int64_t width) {
  constexpr int64_t n = 4001;
  Array x = Array::random(dtype, n * width), grad = Array::random(dtype, n * width);
  under_threads(label("unit_rows", dtype, dtype, width), [&] {
    Array y(dtype, n * width), lengths(accumulator(dtype), n), dx(dtype, n * width);
    cpu::unit_rows<T>(dtype, x.at(0), n, width, y.at(0), lengths.as<T>());
    cpu::unit_rows_gradient<T>(dtype, grad.at(0), x.at(0), lengths.as<T>(), n, width, dx.at(0));
    return Arrays{y, lengths, dx};
  });
}

int64_t planted(const std::string& fault, int64_t most) {
  std::vector<int64_t> numbers(3, most);
  use(3);
  if (fault == "beyond") return numbers.data()[most % 5 + 3];  // most is 2 modulo 5
  if (fault == "overflow") return numbers[0] + numbers[1];
  cpu::parallel(3, [&](int64_t i) {
    for (int64_t k = 0; k < 100000; ++k) numbers[0] ^= i;
  });
  return numbers[0];
}

int run(int count, char** words) {
  if (count > 1) {
    const int64_t found = planted(words[1], INT64_MAX);
    return std::printf("%s went unseen: %lld\n", words[1], static_cast<long long>(found)), 0;
  }
  for (Dtype dtype : kAll) {
    for (int64_t width : kWidths) {
      bank_and_queue(dtype, width);
      nce(dtype, width);
      dtype == Dtype::kFloat64 ? unit_rows_of<double>(dtype, width)
                               : unit_rows_of<float>(dtype, width);
    }
    for (int64_t m : {300, 304}) scores(dtype, m);
    momentum(dtype);
  }
  views();
  contrasts();
  std::printf("%d outputs of every kernel, %d differ\n", checks, differ);
  return differ != 0;
}

}  // namespace
}  // namespace threads

int main(int count, char** words) { return threads::run(count, words); }
