// Views of images, and their parameters.
#include <cstring>

#include "draw_views.h"
#include "random_views.h"
#include "run.h"

namespace threads {
namespace {

constexpr int64_t kImages = 9, kHeight = 40, kWidth = 50, kChannels = 3;
// A crop from the middle; everything; two that end with the image, one number short of whole
// vectors (of a channel, of all three), the first with a factor that fixed point does not hold; the
// last pixel.
constexpr View kViews[] = {{3, 5, 30, 40, 1, {1.2f, 0.7f, 1.4f, 0.1f}, 7, 0, 1.1f, 0.6f},
                           {0, 0, kHeight, kWidth, 0, {1, 1, 1, 0}, 0, 1, 0, 2},
                           {28, 19, 12, 31, 0, {0.5f, 2.5f, 1, -0.3f}, 23, 0, 0, 0.5f},
                           {7, 29, 33, 21, 0, {1, 1, 1, 0}, 0, 0, 0, 2},
                           {39, 49, 1, 1, 1, {1, 1, 1, 0}, 0, 0, 2, 2}};
constexpr int64_t kOfEach = std::size(kViews);

struct Pictures {
  std::vector<char> bytes;
  std::vector<int64_t> offsets, sizes;  // of images of one size, or none

  explicit Pictures(Pixel pixel, bool apart) {
    const int64_t all = kImages * kChannels * kHeight * kWidth;
    bytes.resize(all * size_of(pixel));
    for (int64_t i = 0; i < all; ++i) {
      const auto number = static_cast<uint16_t>(generator());
      const float share = static_cast<float>(number) / 65535;
      const void* from = pixel == Pixel::kFloat32 ? static_cast<const void*>(&share) : &number;
      std::memcpy(bytes.data() + i * size_of(pixel), from, size_of(pixel));
    }
    for (int64_t i = 0; apart && i < kImages; ++i) {
      offsets.push_back(i * kChannels * kHeight * kWidth);
      sizes.insert(sizes.end(), {kHeight, kWidth});
    }
    offsets.shrink_to_fit();
    sizes.shrink_to_fit();
  }
};

// last: channels behind each other in the images and in the views.
void views_of(Pixel pixel, Dtype dtype, int64_t size, bool last, bool apart) {
  const Pictures pictures(pixel, apart);
  std::vector<View> parameters(kImages * kOfEach);
  for (size_t i = 0; i < parameters.size(); ++i) parameters[i] = kViews[i % kOfEach];
  const std::vector<float> mean{0.4f, 0.5f, 0.6f}, deviation{0.2f, 0.3f, 0.4f};
  const int64_t each = kImages * kChannels * size * size;
  under_threads(label("random_views", dtype, dtype, size), [&] {
    Array out(dtype, kOfEach * each);
    const RandomViews x{pictures.bytes.data(),
                        pixel,
                        kImages * kChannels * kHeight * kWidth,
                        apart ? pictures.offsets.data() : nullptr,
                        apart ? pictures.sizes.data() : nullptr,
                        kImages,
                        kOfEach,
                        kChannels,
                        kHeight,
                        kWidth,
                        last,
                        parameters.data(),
                        size,
                        9,
                        mean.data(),
                        deviation.data(),
                        dtype,
                        last,
                        static_cast<char*>(out.at(0)),
                        each};
    cpu::random_views(x, cpu::thread_count());
    return Arrays{out};
  });
}

void draws() {
  const int64_t n = DrawViews::kDraws * kOfEach;
  Array chances = Array::random(Dtype::kFloat32, n * kImages, 1, 0),
        low = Array::random(Dtype::kFloat32, n, 0.5, 0),
        span = Array::random(Dtype::kFloat32, n, 0.5, 0),
        ratio = Array::random(Dtype::kFloat32, 2 * kOfEach, 1, 0.5),
        threshold = Array::random(Dtype::kFloat32, kOfEach, 1, 0),
        shares = Array::random(Dtype::kFloat32, kOfEach, 1, 0),
        middle = Array::random(Dtype::kFloat32, 2 * kImages * kOfEach, 40, 1);
  const std::vector<int64_t> sizes(2 * kImages, 40);
  for (bool given : {false, true}) {
    under_threads("draw_views", [&] {
      Array out(Dtype::kFloat32, kImages * kOfEach * sizeof(View) / sizeof(float));
      cpu::draw_views({chances.as<float>(), kImages, kOfEach, sizes.data(), false,
                       given ? middle.as<float>() : nullptr, low.as<float>(), span.as<float>(),
                       ratio.as<float>(), threshold.as<float>(),
                       given ? nullptr : shares.as<float>(), out.as<View>()});
      return Arrays{out};
    });
  }
}

}  // namespace

void views() {
  for (Pixel pixel : {Pixel::kUint8, Pixel::kUint16, Pixel::kFloat32}) {
    views_of(pixel, Dtype::kFloat32, 33, false, false);
    views_of(pixel, Dtype::kBFloat16, 32, true, false);
    views_of(pixel, Dtype::kFloat16, 17, true, true);
  }
  views_of(Pixel::kUint8, Dtype::kFloat32, 112, false, false);  // past the caches
  draws();
}

}  // namespace threads
