// nce on the CPU: the widest instruction set that the processor has.
#include "../nce.h"

#include <vector>

#include "instruction_set.h"

namespace fastcl {

FASTCL_IN_EVERY_SET(void nce_rows(const Nce&, int64_t begin, int64_t end, void* scratch))

void nce_cpu(const Nce& x, int64_t begin, int64_t end) {
  auto* const rows = FASTCL_CHOSEN(nce_rows);
  std::vector<double> scratch(2 * x.d);
  rows(x, begin, end, scratch.data());
}

}  // namespace fastcl
