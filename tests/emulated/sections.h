// The parts of instruction_sets.cpp that have files of their own.
#pragma once

#include "cpu/pairs.h"

// Does what the processor lacks when it meets it.
void emulate_missing_instructions();

namespace emulated {

void contrasts();
// One product of pairs, and the contrasts over bfloat16 rows, by this kind of product.
void pairs_by(fastcl::cpu::PairProducts wanted);

}  // namespace emulated
