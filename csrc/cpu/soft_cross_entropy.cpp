// soft_cross_entropy on the CPU: the widest instruction set that the processor has.
#include "../soft_cross_entropy.h"

#include <vector>

#include "instruction_set.h"

namespace fastcl {

// row [m + 16] is scratch of the type accumulated in.
FASTCL_IN_EVERY_SET(void soft_cross_entropy_rows(const SoftCrossEntropy&, int64_t begin,
                                                 int64_t end, void* row))

void soft_cross_entropy_cpu(const SoftCrossEntropy& x, int64_t begin, int64_t end) {
  auto* const rows = FASTCL_CHOSEN(soft_cross_entropy_rows);
  std::vector<double> row(x.m + 16);
  rows(x, begin, end, row.data());
}

}  // namespace fastcl
