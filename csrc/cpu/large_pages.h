// Pages of 2 MB where the system has them: every page costs a visit to it when it is first touched.
#pragma once

#include <cstdint>

namespace fastcl::cpu {

// For memory that is about to be written as a whole; too little of it stays as it is.
void use_large_pages(void* memory, int64_t bytes);

}  // namespace fastcl::cpu
