// Random views of images, see fastcl/reference/random_views.py. Nothing here knows torch.
#pragma once

#include <cstdint>

#include "dtype.h"

namespace fastcl {

// One record of the parameters, the twin of fastcl/functional/view_parameters.py.
struct View {
  float top, left, height, width;  // of the crop, in whole pixels of the image
  float mirror;                    // 0 or 1
  float factors[4];                // brightness, contrast, saturation; hue in turns
  float order;                     // of the factors: place among their permutations
  float grey;                      // 0 or 1
  float sigma;                     // of the blur in pixels of the view, 0: none
  float threshold;                 // share of full scale that is inverted, above 1: none
};
static_assert(sizeof(View) == 13 * sizeof(float));

enum class Pixel : uint8_t { kUint8, kUint16, kFloat32 };

inline int64_t size_of(Pixel pixel) {
  return pixel == Pixel::kUint8 ? 1 : pixel == Pixel::kUint16 ? 2 : 4;
}

struct RandomViews {
  const char* images;
  Pixel pixel;
  int64_t elements;        // of all images
  const int64_t* offsets;  // [b] element where an image begins; null: one after the other
  const int64_t* sizes;    // [b, 2] height and width; null: those below
  int64_t b, views, channels, height, width;
  bool channels_last_in;
  const View* parameters;  // [b, views]
  int64_t size, kernel;
  const float* mean;       // [channels]
  const float* deviation;  // [channels]
  Dtype dtype;             // of out
  bool channels_last_out;
  char* out;      // [views, b, channels, size, size], or channels last
  int64_t apart;  // elements of out from a view of an image to its next

  int64_t rows(int64_t image) const { return sizes == nullptr ? height : sizes[2 * image]; }
  int64_t columns(int64_t image) const { return sizes == nullptr ? width : sizes[2 * image + 1]; }
  const char* at(int64_t image) const {
    const int64_t first = offsets == nullptr ? image * channels * height * width : offsets[image];
    return images + first * size_of(pixel);
  }
};

namespace cpu {

// On so many threads at most.
void random_views(const RandomViews& x, int64_t threads);

}  // namespace cpu
}  // namespace fastcl
