// nce: tensors to pointers. Schema, fake kernel and fallback are in fastcl/_library.py.
#include "../nce.h"

#include <tuple>

#include "../tensor.h"

namespace fastcl {
namespace {

void check_nce(const Tensor& x, const Tensor& bank, const Tensor& index) {
  check(x.dim() == 2 && bank.dim() == 2 && x.size(1) == bank.size(1),
        "fastcl: x and bank must be matrices of one width");
  check(dtype(x) != Dtype::kOther && dtype(bank) != Dtype::kOther,
        "fastcl: x and bank must be floating point");
  check(index.dim() == 2 && index.size(0) == x.size(0) && index.scalar_type() == ScalarType::Long,
        "fastcl: index must be an int64 matrix with a row for every row of x");
}

std::tuple<Tensor, Tensor> nce_on_cpu(Tensor x, Tensor bank, Tensor index, double scale,
                                      double bias, OptionalTensor log_normalizer,
                                      OptionalTensor offset, bool need_x) {
  check_nce(x, bank, index);
  const ScalarType type = accumulator(x);
  const int64_t b = x.size(0), d = x.size(1);
  if (offset.has_value()) check_vector(*offset, bank.size(0), type, "offset");
  if (log_normalizer.has_value()) bias -= values<double>(log_normalizer, 1, "log_normalizer")[0];
  Tensor loss = empty(x, {b}, type);
  Tensor dx = empty(x, {need_x ? b : 0, d}, type);
  const Nce problem{checked(x, "x").data_ptr(),
                    checked(bank, "bank").data_ptr(),
                    data<int64_t>(index, "index"),
                    offset.has_value() ? checked(*offset, "offset").data_ptr() : nullptr,
                    dtype(x),
                    dtype(bank),
                    b,
                    bank.size(0),
                    d,
                    index.size(1),
                    scale,
                    bias,
                    loss.data_ptr(),
                    need_x ? dx.data_ptr() : nullptr};
  for (int64_t i = 0; i < b * problem.columns; ++i) {
    check(0 <= problem.index[i] && problem.index[i] < problem.n,
          "fastcl: index must be rows of bank, got ", problem.index[i]);
  }
  // 32,768 elements are 10 us: below, waking the threads costs more than they save.
  const int64_t grain = 1 + 32768 / (problem.columns * d + 1);
  torch::stable::parallel_for(0, b, grain,
                              [&](int64_t begin, int64_t end) { nce_cpu(problem, begin, end); });
  return {loss, dx};
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) { m.impl("nce", TORCH_BOX(&fastcl::nce_on_cpu)); }
