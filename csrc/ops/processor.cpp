// Which of the compiled CPU kernels run. See fastcl/_processor.py.
#include <tuple>

#include "cpu/instruction_set.h"
#include "cpu/pairs.h"
#include "tensor.h"

namespace fastcl {
namespace {

std::tuple<int64_t, int64_t, int64_t> processor() {
  const cpu::InstructionSet set = cpu::instruction_set();
  return {static_cast<int64_t>(set), cpu::lanes(set), static_cast<int64_t>(cpu::pair_products())};
}

// For the tests: each by its number, or -1 for the best that there is.
void use_processor(int64_t set, int64_t pairs) {
  const auto wanted_set =
      set < 0 ? cpu::best_instruction_set() : static_cast<cpu::InstructionSet>(set);
  const auto wanted_pairs =
      pairs < 0 ? cpu::best_pair_products() : static_cast<cpu::PairProducts>(pairs);
  check(cpu::has(wanted_set), "fastcl: this processor lacks instruction set ", set);
  check(cpu::has(wanted_pairs), "fastcl: this processor lacks pair products ", pairs);
  cpu::use_instruction_set(wanted_set);
  cpu::use_pair_products(wanted_pairs);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastcl, m) {
  m.def("processor() -> (int, int, int)");
  m.def("use_processor(int set, int pairs) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(fastcl, CompositeExplicitAutograd, m) {
  m.impl("processor", TORCH_BOX(&processor));
  m.impl("use_processor", TORCH_BOX(&use_processor));
}

}  // namespace fastcl
