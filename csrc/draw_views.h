// The parameters of random views, see fastcl/reference/draw_views.py. Nothing here knows torch.
#pragma once

#include <cstdint>

#include "random_views.h"

namespace fastcl {

struct DrawViews {
  static constexpr int kTries = 10, kDraws = 33;

  const float* chances;  // [kDraws, b, views]
  int64_t b, views;
  const int64_t* sizes;  // [alike ? 1 : b, 2] height and width
  bool alike;
  const float* middle;     // [2, alike ? 1 : b, views], or null
  const float* low;        // [kDraws, views]
  const float* span;       // [kDraws, views]
  const float* ratio;      // [2, views] narrowest and widest
  const float* threshold;  // [views]
  const float* shares;     // [views], or null
  View* out;               // [b, views]
};

namespace cpu {

void draw_views(const DrawViews& x);

}  // namespace cpu
}  // namespace fastcl
