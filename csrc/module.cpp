// The only pybind11 file. It knows Python and not torch; tensors never pass through it.
#include <pybind11/pybind11.h>

#include <string>

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["compiler"] = std::string(
#if defined(__clang__)
      "clang "
#else
      "gcc "
#endif
      __VERSION__);
  info["simd"] = std::string(FASTCL_BUILT_SIMD);
  info["cuda"] = std::string(FASTCL_BUILT_CUDA);
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "How the compiled part of fastcl was built.";
  m.def("build_info", &build_info, "Compiler, instruction sets and CUDA version as strings.");
}
