// momentum_update_ on the CPU: the widest instruction set that the processor has.
#include "../momentum.h"

#include "instruction_set.h"

namespace fastcl {

FASTCL_IN_EVERY_SET(void momentum_chunk(const MomentumPair&, int64_t begin, double momentum,
                                        const int64_t* seed, int64_t stream))

void momentum_update_cpu(const MomentumPair& pair, int64_t begin, double momentum,
                         const int64_t* seed, int64_t stream) {
  auto* const chunk = FASTCL_CHOSEN(momentum_chunk);
  chunk(pair, begin, momentum, seed, stream);
}

}  // namespace fastcl
