// bank_update_: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include "../bank.h"

#include <unordered_map>
#include <vector>

#include "../tensor.h"

namespace fastcl {
namespace {

BankUpdate update_of(Tensor& bank, const Tensor& index, const Tensor& x, double momentum) {
  check(bank.dim() == 2 && x.dim() == 2 && bank.size(1) == x.size(1),
        "fastcl: bank and x must be matrices of one width");
  check(dtype(bank) != Dtype::kOther && dtype(x) != Dtype::kOther,
        "fastcl: bank and x must be floating point");
  check_vector(index, x.size(0), ScalarType::Long, "index");
  return {mutable_data<char>(bank, "bank"),
          data<char>(x, "x"),
          data<int64_t>(index, "index"),
          dtype(bank),
          dtype(x),
          bank.size(0),
          x.size(0),
          bank.size(1),
          momentum};
}

void bank_update_on_cpu(Tensor bank, Tensor index, Tensor x, double momentum) {
  const BankUpdate update = update_of(bank, index, x, momentum);
  // Of several rows of x for one of the bank the last wins; then no two threads write to one row.
  std::unordered_map<int64_t, int64_t> place;
  std::vector<int64_t> chosen;
  place.reserve(update.b);
  chosen.reserve(update.b);
  for (int64_t i = 0; i < update.b; ++i) {
    const int64_t row = update.index[i];
    check(0 <= row && row < update.n, "fastcl: index must be rows of bank, got ", row);
    const auto [at, is_new] = place.try_emplace(row, static_cast<int64_t>(chosen.size()));
    if (is_new) {
      chosen.push_back(i);
    } else {
      chosen[at->second] = i;
    }
  }
  const int64_t grain = 1 + 32768 / (update.d + 1);
  torch::stable::parallel_for(
      0, static_cast<int64_t>(chosen.size()), grain,
      [&](int64_t begin, int64_t end) { bank_update_cpu(update, chosen.data(), begin, end); });
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("bank_update_", TORCH_BOX(&fastcl::bank_update_on_cpu));
}
