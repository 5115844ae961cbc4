// bank_update_ on the CPU: the widest instruction set that the processor has.
#include "../bank.h"

#include <vector>

#include "instruction_set.h"

namespace fastcl {

FASTCL_IN_EVERY_SET(void bank_rows(const BankUpdate&, const int64_t* chosen, int64_t begin,
                                   int64_t end, double* scratch))

void bank_update_cpu(const BankUpdate& update, const int64_t* chosen, int64_t begin, int64_t end) {
  auto* const rows = FASTCL_CHOSEN(bank_rows);
  std::vector<double> scratch(update.d);
  rows(update, chosen, begin, end, scratch.data());
}

}  // namespace fastcl
