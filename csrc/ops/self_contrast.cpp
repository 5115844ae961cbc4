// self_contrast_mean: tensors to pointers. Schema, fake kernel and composite fallback are in
// fastcl/_library.py.
#include <tuple>
#include <vector>

#include "ops/problem.h"

namespace fastcl {
namespace {

// paired is of no use here: rows without a positive are found on the way.
std::tuple<Tensor, Tensor, Tensor> self_contrast_mean(std::vector<Tensor> parts, double scale,
                                                      Tensor ids, bool positives_in, bool normalize,
                                                      bool paired, bool need) {
  static_cast<void>(paired);
  InfoNce x = raw_problem(parts, {}, scale, {}, ids, ids, positives_in);
  const ScalarType type = accumulator(parts[0]);
  Tensor loss = torch::stable::new_empty(parts[0], {}, type);
  Tensor rows = torch::stable::new_empty(parts[0], {4, x.n}, type);
  Tensor dz = torch::stable::new_empty(parts[0], {need ? x.n : 0, x.d}, type);
  with_accumulator(parts[0], [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> lengths;
    if (normalize) {
      lengths.resize(x.n);
      cpu::row_lengths<T>(x.dtype, x.q, x.d, lengths.data());
      x.q_lengths = x.k_lengths = lengths.data();
    }
    double mean = 0;
    cpu::self_contrast_mean<T>(
        {x, mutable_data<T>(rows, "rows"), need ? mutable_data<T>(dz, "dz") : nullptr, &mean});
    *mutable_data<T>(loss, "loss") = static_cast<T>(mean);
  });
  return {loss, rows, dz};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("self_contrast_mean", TORCH_BOX(&self_contrast_mean));
}

}  // namespace fastcl
