// The parameters of random views: what is drawn first and fits is looked at first, and what lies
// behind it not at all.
#include "draw_views.h"

#include <algorithm>
#include <cmath>

namespace fastcl::cpu {
namespace {

constexpr float kNever = 2;  // a threshold that no pixel reaches

// Rows of the random numbers, as in the reference.
enum Draw {
  kArea = 0,
  kRatio = 10,
  kPlace = 20,
  kFactors = 22,
  kOrder = 26,
  kSigma,
  kJitter,
  kMirror,
  kGrey,
  kBlur,
  kSolarise
};

// In double by a series, rounded once: the same bits on every machine, which the C library's are
// not.
float exponential(float x) {
  constexpr double kLog2 = 0.6931471805599453;
  const double turns = std::nearbyint(static_cast<double>(x) / kLog2);
  const double rest = static_cast<double>(x) - turns * kLog2;  // at most 0.35
  static constexpr double kInverse[] = {1,        1 / 2.0,  1 / 3.0, 1 / 4.0, 1 / 5.0,
                                        1 / 6.0,  1 / 7.0,  1 / 8.0, 1 / 9.0, 1 / 10.0,
                                        1 / 11.0, 1 / 12.0, 1 / 13.0};
  double sum = 1;
  for (int n = 12; n >= 0; --n) sum = 1 + sum * (rest * kInverse[n]);
  return static_cast<float>(std::ldexp(sum, static_cast<int>(std::clamp(turns, -999.0, 999.0))));
}

struct One {
  const DrawViews& x;
  int64_t image, view;

  // With one rounding, as torch's addcmul.
  float drawn(int row) const {
    const int64_t at = row * x.views + view;
    return std::fma(x.span[at], x.chances[(row * x.b + image) * x.views + view], x.low[at]);
  }
  bool comes_true(Draw chance) const { return drawn(chance) < 0; }

  // The box in the middle: the image, cut down to the ratios allowed, or a square.
  void middle(float height, float width, float& high, float& broad) const {
    if (x.middle != nullptr) {
      const int64_t row = x.alike ? 0 : image, rows = x.alike ? 1 : x.b;
      high = x.middle[row * x.views + view];
      broad = x.middle[(rows + row) * x.views + view];
      return;
    }
    const auto whole = [](float side) { return std::max(std::nearbyint(side), 1.0f); };
    if (x.shares != nullptr && x.shares[view] != 0) {
      high = broad = whole(x.shares[view] * std::min(height, width));
      return;
    }
    const float narrow = x.ratio[view], wide = x.ratio[x.views + view];
    high = width < narrow * height ? whole(width / narrow) : height;
    broad = width > wide * height ? whole(height * wide) : width;
  }

  // The first try that fits, else the middle.
  void crop(View& to) const {
    const int64_t* const sides = x.sizes + (x.alike ? 0 : 2 * image);
    const auto height = static_cast<float>(sides[0]), width = static_cast<float>(sides[1]);
    const float all = height * width;
    const bool random = x.shares == nullptr || x.shares[view] == 0;
    for (int i = 0; random && i < DrawViews::kTries; ++i) {
      const float area = drawn(kArea + i) * all, stretch = exponential(drawn(kRatio + i));
      to.height = std::nearbyint(std::sqrt(area / stretch));
      to.width = std::nearbyint(std::sqrt(area * stretch));
      if (to.height > 0 && to.width > 0 && to.height <= height && to.width <= width) {
        to.top = std::floor(drawn(kPlace) * (height - to.height + 1));
        to.left = std::floor(drawn(kPlace + 1) * (width - to.width + 1));
        return;
      }
    }
    middle(height, width, to.height, to.width);
    to.top = std::floor((height - to.height) / 2);
    to.left = std::floor((width - to.width) / 2);
  }

  View made() const {
    View to{};
    crop(to);
    to.mirror = comes_true(kMirror);
    const bool jittered = comes_true(kJitter);
    for (int k = 0; k < 4; ++k) {
      to.factors[k] = jittered ? drawn(kFactors + k) : k == 3 ? 0.0f : 1.0f;
    }
    to.order = std::floor(drawn(kOrder));
    to.grey = comes_true(kGrey);
    to.sigma = comes_true(kBlur) ? drawn(kSigma) : 0;
    to.threshold = comes_true(kSolarise) ? x.threshold[view] : kNever;
    return to;
  }
};

}  // namespace

void draw_views(const DrawViews& x) {
  for (int64_t i = 0; i < x.b; ++i) {
    for (int64_t v = 0; v < x.views; ++v) x.out[i * x.views + v] = One{x, i, v}.made();
  }
}

}  // namespace fastcl::cpu
