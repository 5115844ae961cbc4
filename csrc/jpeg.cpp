// The part of a JPEG file that a view is made of, by libjpeg-turbo: no binding of it for Python has
// this. It knows Python and not torch.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "jpeglib.h"  // last: it needs <cstdio>

#define FASTCL_QUOTE(x) #x
#define FASTCL_QUOTED(x) FASTCL_QUOTE(x)

namespace {

struct Errors {
  jpeg_error_mgr manager;
  std::jmp_buf back;
};

[[noreturn]] void leave(j_common_ptr file) {
  std::longjmp(reinterpret_cast<Errors*>(file->err)->back, 1);
}

constexpr JDIMENSION kRows = 16;  // that are asked for at once

struct Box {
  JDIMENSION top, bottom, left, right;
};

// Whether nothing but pixels is left, up to the end marker: rows that are not decoded could hold no
// other error than wrong pixels.
bool only_pixels(const uint8_t* data, size_t bytes) {
  if (bytes < 2 || data[bytes - 2] != 0xff || data[bytes - 1] != JPEG_EOI) return false;
  const uint8_t *at = data, *end = data + bytes - 2;
  while ((at = static_cast<const uint8_t*>(std::memchr(at, 0xff, end - at))) != nullptr) {
    if (at[1] != 0 && (at[1] < JPEG_RST0 || at[1] > JPEG_RST0 + 7)) return false;
    at += 2;
  }
  return true;
}

// Whether the box was decoded to its place in the image: not of a file that another decoder could
// refuse. Nothing here has a destructor, as an error leaves by a jump.
bool decode(const uint8_t* data, size_t bytes, uint8_t* image, JDIMENSION height, JDIMENSION width,
            Box box) {
  jpeg_decompress_struct file;
  Errors errors;
  file.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = leave;
  errors.manager.output_message = [](j_common_ptr) {};
  file.mem = nullptr;  // nothing to let go, should its creation fail
  if (setjmp(errors.back) != 0) {
    jpeg_destroy_decompress(&file);
    return false;
  }
  jpeg_create_decompress(&file);
  jpeg_mem_src(&file, const_cast<uint8_t*>(data), bytes);
  jpeg_read_header(&file, TRUE);
  file.out_color_space = JCS_RGB;
  bool decoded = file.image_height == height && file.image_width == width &&
                 !jpeg_has_multiple_scans(&file) &&
                 only_pixels(file.src->next_input_byte, file.src->bytes_in_buffer);
  if (decoded) {
    jpeg_start_decompress(&file);
    // Smooth upsampling lacks a neighbour of the colours at both ends of a row: one more each.
    JDIMENSION more = file.max_h_samp_factor;
    JDIMENSION first = box.left > more ? box.left - more : 0;
    JDIMENSION end = box.right + more < width ? box.right + more : width;
    JDIMENSION columns = end - first;
    if (columns < width) jpeg_crop_scanline(&file, &first, &columns);
    if (box.top > 0) jpeg_skip_scanlines(&file, box.top);
    while (file.output_scanline < box.bottom) {
      JSAMPROW rows[kRows];
      JDIMENSION count = std::min(kRows, box.bottom - file.output_scanline);
      for (JDIMENSION i = 0; i < count; ++i) {
        rows[i] = image + 3 * (static_cast<size_t>(file.output_scanline + i) * width + first);
      }
      jpeg_read_scanlines(&file, rows, count);
    }
    decoded = errors.manager.num_warnings == 0;
  }
  jpeg_destroy_decompress(&file);
  return decoded;
}

bool decode_box(const pybind11::bytes& data, const pybind11::buffer& image, int64_t top,
                int64_t bottom, int64_t left, int64_t right) {
  pybind11::buffer_info to = image.request(true);
  if (to.format != "B" || to.ndim != 3 || to.shape[2] != 3 || to.strides[2] != 1 ||
      to.strides[1] != 3 || to.strides[0] != 3 * to.shape[1])
    throw pybind11::value_error("image must be contiguous uint8 [h, w, 3]");
  if (!(0 <= top && top < bottom && bottom <= to.shape[0] && 0 <= left && left < right &&
        right <= to.shape[1] && to.shape[0] <= JPEG_MAX_DIMENSION &&
        to.shape[1] <= JPEG_MAX_DIMENSION))
    throw pybind11::value_error("the box must be in the image");
  char* bytes = nullptr;
  Py_ssize_t length = 0;
  if (PyBytes_AsStringAndSize(data.ptr(), &bytes, &length) != 0)
    throw pybind11::error_already_set();
  Box box{static_cast<JDIMENSION>(top), static_cast<JDIMENSION>(bottom),
          static_cast<JDIMENSION>(left), static_cast<JDIMENSION>(right)};
  pybind11::gil_scoped_release unlocked;
  return decode(reinterpret_cast<const uint8_t*>(bytes), length, static_cast<uint8_t*>(to.ptr),
                to.shape[0], to.shape[1], box);
}

}  // namespace

PYBIND11_MODULE(_jpeg, m) {
  m.doc() = "A part of a JPEG file.";
  m.attr("VERSION") = FASTCL_QUOTED(LIBJPEG_TURBO_VERSION);
  m.def("decode_box", &decode_box,
        "Rows and columns of the image, to their place in uint8 [h, w, 3]; what is around them may "
        "be written too. False: this file is for another decoder, and the memory holds anything.");
}
