// One view of one image: 8-bit images in 16-bit fixed point, where factors and blur are not far
// beyond those of the papers, all others in float. The bytes of the image are read once per tap,
// those of the view are written once; what lies between are planes of the size of the view, in the
// second cache.
#include "random_views.h"

#include "cpu/simd/random_views_blur.h"
#include "cpu/simd/random_views_colour.h"
#include "cpu/simd/random_views_permute.h"
#include "cpu/simd/random_views_resize.h"

namespace fastcl::FASTCL_SIMD {
namespace {

// Pixels of a strip of colours: three channels of 16 bits take 6 KB.
constexpr int64_t kStrip = 1024;
// Of an axis. From here on the rounding of the weights could show.
constexpr int64_t kMostTaps = 128;
// Bytes of all views above which they do not stay in a cache.
constexpr int64_t kCached = 4 << 20;
// Beyond these, roundings of 16 bits add up to more than a blur or a chain may be off.
constexpr float kLargestFactor = 1.81f, kLargestSigma = 6;
constexpr int64_t kLargestKernel = 47;
// Of a threshold: what rounding leaves of a level of whole numbers that equals it.
constexpr float kNearly = 1 - 0x1p-21f;

// Brightness, contrast, saturation and hue, by their numbers, one after the other.
struct Order {
  int operation[4];

  // The permutations are in the order of a dictionary.
  explicit Order(int place) {
    const int choices[] = {6, 2, 1, 1};
    int left[] = {0, 1, 2, 3};
    for (int i = 0; i < 4; ++i) {
      const int at = place / choices[i];
      operation[i] = left[at];
      for (int l = at; l < 3; ++l) left[l] = left[l + 1];
      place -= at * choices[i];
    }
  }
};

// Pixels of a plane in memory: whole vectors of a strip.
int64_t plane_stride(int64_t size) {
  return (size * size + kViewBytes - 1) / kViewBytes * kViewBytes;
}

// The colours of a view, strip after strip: what comes before the contrast as soon as there are
// pixels, the rest once their mean is known.
template <typename A>
struct Colours {
  const View& view;
  typename A::Element* planes;
  int64_t pixels, plane;
  bool some;  // or nothing changes
  Order order{static_cast<int>(view.order)};
  int contrast_at = 0;                 // place in the order
  double total = 0;                    // of the grey of all pixels
  int64_t measured = 0, adjusted = 0;  // pixels

  Colours(const View& view, typename A::Element* planes, int64_t pixels, int64_t plane,
          int64_t channels)
      : view(view), planes(planes), pixels(pixels), plane(plane) {
    some =
        channels == 3 && (changes(0) || changes(1) || changes(2) || changes(3) || view.grey != 0);
    while (waits() && order.operation[contrast_at] != 1) ++contrast_at;
  }

  bool changes(int operation) const {
    return view.factors[operation] != (operation == 3 ? 0.0f : 1.0f);
  }
  // For the mean of all pixels.
  bool waits() const { return some && changes(1); }

  // f(strip, pixels that count) for strips from pixel `from` on that end at `until` or before.
  template <typename F>
  void strips(int64_t& from, int64_t until, const F& f) const {
    while (from < pixels) {
      const int64_t count = pixels - from < kStrip ? pixels - from : kStrip;
      if (from + count > until) return;
      typename A::Element* const first = planes + from;
      const Strip<A> strip{{first, first + plane, first + 2 * plane},
                           (count + A::kLanes - 1) / A::kLanes * A::kLanes};
      f(strip, count);
      from += count;
    }
  }

  // Operations from .. to of the order on a strip.
  void adjust(const Strip<A>& strip, int from, int to, float mean) const {
    for (int i = from; i < to; ++i) {
      const int what = order.operation[i];
      if (!changes(what)) continue;
      const float factor = view.factors[what];
      if (what == 0) brightness(strip, factor);
      if (what == 1) contrast(strip, factor, mean);
      if (what == 2) saturation(strip, factor);
      if (what == 3) hue(strip, factor);
    }
    if (to == 4 && view.grey != 0) {
      strip.each([](auto& r, auto& g, auto& b) { r = A::from_grey(A::grey(r, g, b)); });
    }
  }

  // Up to the contrast, in strips that have their pixels.
  void measure(int64_t until) {
    strips(measured, until, [&](const Strip<A>& strip, int64_t count) {
      adjust(strip, 0, contrast_at, 0);
      total += grey_sum(strip, count);
    });
  }
  // From the contrast on; finish(first pixel, how many) after every strip.
  template <typename F>
  void complete(int64_t until, const F& finish) {
    const auto mean = static_cast<float>(total / static_cast<double>(pixels));
    strips(adjusted, until, [&](const Strip<A>& strip, int64_t count) {
      if (some) adjust(strip, contrast_at, 4, mean);
      finish(adjusted, count);
    });
  }
};

template <typename P>
Crop<P> crop_of(const RandomViews& x, int64_t image, const View& view) {
  const int64_t w = x.columns(image), c = x.channels;
  const bool last = x.channels_last_in || x.offsets != nullptr;
  const auto top = static_cast<int64_t>(view.top), left = static_cast<int64_t>(view.left);
  const auto width = static_cast<int64_t>(view.width);
  const P* first = reinterpret_cast<const P*>(x.at(image)) + (top * w + left) * (last ? c : 1);
  const P* end = reinterpret_cast<const P*>(x.images) + x.elements;
  if (last) return {first, end, w * c, 0, 1, width * c, c};
  return {first, end, w, x.rows(image) * w, c, width, 1};
}

template <typename A, typename P>
void render(const RandomViews& x, int64_t image, const View& view, char* out, char* scratch) {
  using E = typename A::Element;
  const int64_t size = x.size, plane = plane_stride(size), c = x.channels;
  Arena arena{scratch};
  const auto height = static_cast<int64_t>(view.height), width = static_cast<int64_t>(view.width);
  const Crop<P> crop = crop_of<P>(x, image, view);
  E* planes = arena.take<E>(c * plane + A::kLanes);  // the blur reads whole vectors
  const Taps<A> taps = blur_taps<A>(view.sigma, x.kernel, arena);
  Arena resizing = arena;
  const int raised = axis_taps(height, size) > kFewTaps ? 0 : kRaised;
  const Axis<A> rows = resize_axis<A>(height, size, false, raised, resizing);
  const Axis<A> columns = resize_axis<A>(width, size, view.mirror != 0, 0, resizing);
  const bool grey = c == 3 && view.grey != 0;
  const bool streamed = x.views * x.apart * size_of(x.dtype) > kCached;
  const bool last = x.channels_last_out && c > 1;
  const bool whole = x.pixel != Pixel::kFloat32 && view.threshold <= 1;
  const float threshold = view.threshold * (whole ? kNearly : 1.0f);
  const Target target{x.dtype, out,         c,         size * size, last,
                      x.mean,  x.deviation, threshold, A::kUnit,    streamed};
  const auto write = [&](int64_t first, int64_t count) {
    for (int64_t k = 0; k < (grey ? 1 : c); ++k) {
      solarise<A>(threshold, planes + k * plane + first, count);
    }
    write_pixels(target, planes + first, grey ? 0 : plane, first, count);
  };
  Colours<A> colours(view, planes, size * size, plane, c);
  const bool blurred = taps.reach > 0;
  const auto resized = [&](int64_t pixels) {
    if (colours.waits()) return colours.measure(pixels);
    if (!blurred) colours.complete(pixels, write);
  };
  if (!resize_by_picks(crop, rows, columns, c, size, planes, plane, resizing, resized)) {
    E* strip = resizing.take<E>(crop.parts * crop.padded() * A::kLanes);
    resize<A>(crop, rows, columns, c, size, strip, planes, plane, resized);
  }
  if (!blurred) return colours.complete(size * size, write);
  const auto coloured = [&](int64_t pixels) {
    colours.complete(pixels + kStrip - 1, [](int64_t, int64_t) {});
  };
  blur_and_write(taps, planes, plane, grey ? 1 : c, size, target, arena, coloured);
}

bool fits_fixed(const RandomViews& x, const View& view) {
  bool small = x.pixel == Pixel::kUint8;
  for (int k = 0; k < 3; ++k) small = small && view.factors[k] <= kLargestFactor;
  const auto height = static_cast<int64_t>(view.height), width = static_cast<int64_t>(view.width);
  small = small && (x.kernel <= kLargestKernel || view.sigma <= kLargestSigma);
  return small && axis_taps(height, x.size) <= kMostTaps && axis_taps(width, x.size) <= kMostTaps;
}

}  // namespace

int64_t random_view_scratch(const RandomViews& x) {
  int64_t strip = 0, taps = 0;
  for (int64_t i = 0; i < x.b * x.views; ++i) {
    const View& view = x.parameters[i];
    const auto height = static_cast<int64_t>(view.height), width = static_cast<int64_t>(view.width);
    const int64_t row = (width * x.channels + (x.channels + 1) * kViewBytes) * kViewBytes;
    const int64_t most = axis_taps(height, x.size) + axis_taps(width, x.size);
    strip = row > strip ? row : strip;
    taps = most > taps ? most : taps;
  }
  const int64_t planes = x.channels * plane_stride(x.size) * 4 + kViewBytes;
  const int64_t axes = 4 * (taps + 4) * axis_stride(x.size) + taps * kViewBytes + strip +
                       scratch_of_picks(taps, x.size);
  const int64_t rows = (x.size + x.kernel) * 4 + 3 * kViewBytes;
  const int64_t blur = (x.kernel + 2) * 40 + (kBlurRows * (1 + x.channels) + 1) * rows;
  return planes + axes + blur + 40 * 64;
}

void random_view(const RandomViews& x, int64_t image, int64_t v, char* scratch) {
  const View& view = x.parameters[image * x.views + v];
  const int64_t pixels = x.channels * x.size * x.size;
  char* out = x.out + (v * x.apart + image * pixels) * size_of(x.dtype);
  if (fits_fixed(x, view)) return render<Fixed, uint8_t>(x, image, view, out, scratch);
  if (x.pixel == Pixel::kUint8) return render<Float, uint8_t>(x, image, view, out, scratch);
  if (x.pixel == Pixel::kUint16) return render<Float, uint16_t>(x, image, view, out, scratch);
  render<Float, float>(x, image, view, out, scratch);
}

}  // namespace fastcl::FASTCL_SIMD
