// soft_cross_entropy: tensors to pointers. Schema, fake kernel and fallback are in
// fastcl/_library.py.
#include "../soft_cross_entropy.h"

#include <tuple>
#include <vector>

#include "../tensor.h"

namespace fastcl {
namespace {

std::tuple<Tensor, Tensor> soft_cross_entropy(Tensor scores, Tensor target, double scale,
                                              double factor, bool need_scores) {
  check(scores.dim() == 2 && target.dim() == 2 && scores.size(0) == target.size(0) &&
            scores.size(1) == target.size(1),
        "fastcl: scores and target must be matrices of one shape");
  check(dtype(scores) != Dtype::kOther, "fastcl: scores must be floating point");
  check(target.scalar_type() == scores.scalar_type() || target.scalar_type() == accumulator(scores),
        "fastcl: target must have the dtype of scores, or the one they accumulate in");
  const int64_t n = scores.size(0), m = scores.size(1);
  std::vector<double> losses(n);
  Tensor loss = empty(scores, {}, accumulator(scores));
  Tensor grad = empty(scores, {need_scores ? n : 0, m});
  const SoftCrossEntropy problem{checked(scores, "scores").data_ptr(),
                                 checked(target, "target").data_ptr(),
                                 dtype(scores),
                                 dtype(target),
                                 m,
                                 scale,
                                 factor,
                                 losses.data(),
                                 need_scores ? grad.data_ptr() : nullptr};
  // 32,768 scores are some 30 us: below, waking the threads costs more than they save.
  torch::stable::parallel_for(0, n, 1 + 32768 / (m + 1), [&](int64_t begin, int64_t end) {
    soft_cross_entropy_cpu(problem, begin, end);
  });
  double sum = 0;
  for (const double x : losses) sum += x;
  with_accumulator(scores, [&](auto zero) {
    using T = decltype(zero);
    *mutable_data<T>(loss, "loss") = static_cast<T>(sum);
  });
  return {loss, grad};
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("soft_cross_entropy", TORCH_BOX(&fastcl::soft_cross_entropy));
}
