// random_views, random_views_ and image_views_: what the operators accept. The values of the
// parameters decide which memory is read, so they are looked at here too.
#include "random_views.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/large_pages.h"
#include "cpu/threads.h"
#include "tensor.h"

namespace fastcl {
namespace {

Pixel pixel_of(const Tensor& images) {
  switch (images.scalar_type()) {
    case ScalarType::Byte:
      return Pixel::kUint8;
    case ScalarType::UInt16:
      return Pixel::kUint16;
    case ScalarType::Float:
      return Pixel::kFloat32;
    default:
      check(false, "fastcl: images must be uint8, uint16 or float32");
      return Pixel::kUint8;
  }
}

bool is_float(const Tensor& x) { return x.scalar_type() == ScalarType::Float; }

void set_images(const Tensor& images, const OptionalTensor& offsets, const OptionalTensor& sizes,
                RandomViews& x) {
  x.pixel = pixel_of(images);
  x.images = data<char>(images, "images");
  x.elements = images.numel();
  check(x.elements > 0, "fastcl: images must have pixels");
  check(offsets.has_value() == sizes.has_value(), "fastcl: offsets and sizes belong together");
  if (!offsets.has_value()) {
    check(images.dim() == 4, "fastcl: images must have 4 dimensions, got ", images.dim());
    const int first = x.channels_last_in ? 1 : 2;
    x.b = images.size(0);
    x.channels = images.size(x.channels_last_in ? 3 : 1);
    x.height = images.size(first);
    x.width = images.size(first + 1);
    return;
  }
  check_matrix(images, "images");
  check_matrix(*sizes, "sizes");
  x.channels = images.size(1);
  x.b = sizes->size(0);
  check(sizes->size(1) == 2, "fastcl: sizes must have 2 columns, got ", sizes->size(1));
  check_device(*sizes, images, "sizes");
  check_device(*offsets, images, "offsets");
  check_vector(*offsets, x.b, ScalarType::Long, "offsets");
  check_vector(*sizes, 2 * x.b, ScalarType::Long, "sizes");
  x.offsets = data<int64_t>(*offsets, "offsets");
  x.sizes = data<int64_t>(*sizes, "sizes");
  const int64_t pixels = images.size(0);
  for (int64_t i = 0; i < x.b; ++i) {
    const int64_t h = x.rows(i), w = x.columns(i);
    check(h > 0 && w > 0 && h <= pixels && w <= pixels / h, "fastcl: sizes of image ", i,
          " must fit into ", pixels, " pixels, got ", h, " x ", w);
    check(x.offsets[i] >= 0 && x.offsets[i] <= x.elements - h * w * x.channels, "fastcl: offsets[",
          i, "] leaves no room for its image, got ", x.offsets[i]);
  }
}

bool whole(float x, double low, double high) { return x >= low && x <= high && x == std::floor(x); }

void check_view(const View& p, int64_t h, int64_t w, int64_t channels, int64_t i) {
  check(whole(p.height, 1, h) && whole(p.top, 0, h - static_cast<int64_t>(p.height)) &&
            whole(p.width, 1, w) && whole(p.left, 0, w - static_cast<int64_t>(p.width)),
        "fastcl: parameters of view ", i, " must be a crop inside of an image of ", h, " x ", w,
        ", got top ", p.top, ", left ", p.left, ", height ", p.height, ", width ", p.width);
  bool good = whole(p.mirror, 0, 1) && whole(p.grey, 0, 1) && whole(p.order, 0, 23);
  for (int k = 0; k < 3; ++k) good = good && p.factors[k] >= 0 && std::isfinite(p.factors[k]);
  good = good && p.factors[3] >= -0.5f && p.factors[3] <= 0.5f && p.threshold >= 0 &&
         p.sigma >= 0 && std::isfinite(p.sigma);
  check(good, "fastcl: parameters of view ", i, " are out of range");
  const bool coloured = p.factors[0] != 1 || p.factors[1] != 1 || p.factors[2] != 1 ||
                        p.factors[3] != 0 || p.grey != 0;
  check(channels == 3 || !coloured, "fastcl: parameters of view ", i,
        " change colours, which need 3 channels, got ", channels);
}

// Those of the images, which begin at a row of all.
void set_parameters(const Tensor& images, const Tensor& parameters, int64_t row, RandomViews& x) {
  check(std::max(x.height, x.width) < std::numeric_limits<int32_t>::max(),
        "fastcl: images have too many rows or columns");
  check(parameters.dim() == 3 && parameters.size(2) == 13 && is_float(parameters),
        "fastcl: parameters must be float32 [b, V, 13]");
  check(row >= 0 && x.b <= parameters.size(0) - row, "fastcl: parameters must have row ",
        row + x.b - 1, ", got ", parameters.size(0));
  check_device(parameters, images, "parameters");
  x.views = parameters.size(1);
  check(x.views > 0, "fastcl: parameters must have one view at least");
  const float* const first = data<float>(parameters, "parameters");
  x.parameters = reinterpret_cast<const View*>(first) + row * x.views;
  for (int64_t i = 0; i < x.b * x.views; ++i) {
    const int64_t image = i / x.views;
    check_view(x.parameters[i], x.rows(image), x.columns(image), x.channels, i);
  }
}

const float* per_channel(const Tensor& images, const Tensor& values, int64_t channels,
                         const char* name) {
  check(values.numel() == channels && is_float(values), "fastcl: ", name, " must be float32 [",
        channels, "]");
  check_device(values, images, name);
  return data<float>(values, name);
}

void set_writing(const Tensor& images, int64_t size, int64_t kernel, const Tensor& mean,
                 const Tensor& deviation, RandomViews& x) {
  check(size > 0 && size <= 1 << 15, "fastcl: size must be from 1 to 32768, got ", size);
  check(kernel > 0 && kernel % 2 == 1 && kernel / 2 < size,
        "fastcl: kernel must be odd and below twice the size, got ", kernel);
  x.size = size;
  x.kernel = kernel;
  x.mean = per_channel(images, mean, x.channels, "mean");
  x.deviation = per_channel(images, deviation, x.channels, "deviation");
}

void set_dtype(const Tensor& out, RandomViews& x) {
  x.dtype = fastcl::dtype(out);
  check(x.dtype != Dtype::kOther && x.dtype != Dtype::kFloat64,
        "fastcl: dtype must be float32, bfloat16 or float16");
}

// What both operators are given, but for what they write.
RandomViews asked(const Tensor& images, const OptionalTensor& offsets, const OptionalTensor& sizes,
                  const Tensor& parameters, bool channels_last_in, bool channels_last_out) {
  RandomViews x{};
  x.channels_last_in = channels_last_in;
  x.channels_last_out = channels_last_out;
  set_images(images, offsets, sizes, x);
  set_parameters(images, parameters, 0, x);
  check(parameters.size(0) == x.b, "fastcl: parameters must have ", x.b, " rows, got ",
        parameters.size(0));
  return x;
}

void run(RandomViews& x, Tensor& out) {
  set_dtype(out, x);
  x.out = mutable_data<char>(out, "out");
  x.apart = x.b * x.channels * x.size * x.size;
  cpu::random_views(x, cpu::thread_count());
}

Tensor random_views(Tensor images, OptionalTensor offsets, OptionalTensor sizes, Tensor parameters,
                    int64_t size, int64_t kernel, Tensor mean, Tensor deviation, ScalarType dtype,
                    bool channels_last_in, bool channels_last_out) {
  RandomViews x = asked(images, offsets, sizes, parameters, channels_last_in, channels_last_out);
  set_writing(images, size, kernel, mean, deviation, x);
  Tensor out = channels_last_out ? empty(images, {x.views, x.b, size, size, x.channels}, dtype)
                                 : empty(images, {x.views, x.b, x.channels, size, size}, dtype);
  cpu::use_large_pages(out.data_ptr(), out.numel() * out.element_size());
  run(x, out);
  return out;
}

void random_views_to(Tensor images, OptionalTensor offsets, OptionalTensor sizes, Tensor parameters,
                     int64_t kernel, Tensor mean, Tensor deviation, bool channels_last_in,
                     bool channels_last_out, Tensor out) {
  RandomViews x = asked(images, offsets, sizes, parameters, channels_last_in, channels_last_out);
  check(out.dim() == 5, "fastcl: out must have 5 dimensions, got ", out.dim());
  check_device(out, images, "out");
  set_writing(images, out.size(3), kernel, mean, deviation, x);
  const int channel = channels_last_out ? 4 : 2, row = channels_last_out ? 2 : 4;
  check(out.size(0) == x.views && out.size(1) == x.b && out.size(channel) == x.channels &&
            out.size(row) == x.size,
        "fastcl: out must hold ", x.views, " views of ", x.b, " images of ", x.channels,
        " channels");
  run(x, out);
}

// The place of an image in the memory of a batch, where each view lies in one piece.
void set_place(Tensor& out, int64_t place, RandomViews& x) {
  const int64_t pixels = x.channels * x.size * x.size, first = x.channels_last_out ? 2 : 3;
  check(out.size(0) == x.views && out.size(first) == x.size && out.size(first + 1) == x.size &&
            out.size(x.channels_last_out ? 4 : 2) == x.channels,
        "fastcl: out must hold ", x.views, " views of ", x.channels, " channels");
  check(place >= 0 && place < out.size(1), "fastcl: place must be below ", out.size(1), ", got ",
        place);
  // The stride of a dimension of one says nothing.
  const auto steps = [&](int dim, int64_t least) {
    return out.size(dim) == 1 || out.stride(dim) >= least;
  };
  bool contiguous = true;
  for (int64_t dim = 4, step = 1; dim > 1; step *= out.size(dim--)) {
    contiguous = contiguous && (out.size(dim) == 1 || out.stride(dim) == step);
  }
  // Image after image within a view, or view after view within an image.
  const int64_t images = (out.size(1) - 1) * out.stride(1), views = (x.views - 1) * out.stride(0);
  check(contiguous && steps(0, pixels) && steps(1, pixels) &&
            (steps(0, images + pixels) || steps(1, views + pixels)),
        "fastcl: every view of out must be contiguous and no two in one place");
  set_dtype(out, x);
  x.out = static_cast<char*>(out.data_ptr()) + place * out.stride(1) * size_of(x.dtype);
  x.apart = x.views == 1 ? pixels : out.stride(0);
}

void image_views(Tensor image, Tensor parameters, int64_t row, int64_t kernel, Tensor mean,
                 Tensor deviation, bool channels_last_out, Tensor out, int64_t place) {
  check(image.dim() == 3, "fastcl: image must have 3 dimensions, got ", image.dim());
  RandomViews x{};
  x.pixel = pixel_of(image);
  x.images = data<char>(image, "image");
  x.elements = image.numel();
  check(x.elements > 0, "fastcl: image must have pixels");
  check_device(out, image, "out");
  x.b = 1;
  x.height = image.size(0);
  x.width = image.size(1);
  x.channels = image.size(2);
  x.channels_last_in = true;
  x.channels_last_out = channels_last_out;
  set_parameters(image, parameters, row, x);
  check(out.dim() == 5, "fastcl: out must have 5 dimensions, got ", out.dim());
  set_writing(image, out.size(3), kernel, mean, deviation, x);
  set_place(out, place, x);
  cpu::random_views(x, 1);
}

}  // namespace
}  // namespace fastcl

STABLE_TORCH_LIBRARY_IMPL(fastcl, CPU, m) {
  m.impl("random_views", TORCH_BOX(&fastcl::random_views));
  m.impl("random_views_", TORCH_BOX(&fastcl::random_views_to));
  m.impl("image_views_", TORCH_BOX(&fastcl::image_views));
}
