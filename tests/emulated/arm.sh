# A 64-bit ARM processor: a Neoverse N1 on a Debian of its own, with the compiled part cross-built.
set -euo pipefail
processor=ARM
. tests/emulated/common.sh

DEBIAN=$EMULATED/debian-arm64
SITE=$EMULATED/arm-site-packages
CHECKOUT=$EMULATED/arm-checkout

fetch_debian() {
  "$mmdebstrap" --variant=extract --architectures=arm64 \
    --include=python3,libpython3.11-dev,libstdc++6,libgomp1 bookworm "$DEBIAN" || return 1
  mkdir -p "$DEBIAN/proc"
  # torch asks it for the instruction sets, and qemu shows the machine's own.
  cat >"$DEBIAN/proc/cpuinfo" <<END
processor	: 0
Features	: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1
END
}

fetch_packages() {
  local fetch="$PYTHON -m pip install --quiet --target $SITE --python-version 3.11"
  fetch+=" --only-binary=:all: --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64"
  fetch+=" --platform manylinux2014_aarch64"
  local torch="import torch; print('torch==' + torch.__version__.split('+')[0])"
  # Without CUDA, which is larger than all the rest: cuda_stub.py stands for it.
  $fetch --no-deps "$("$PYTHON" -c "$torch")" &&
    $fetch numpy filelock typing-extensions sympy networkx jinja2 fsspec pytest hypothesis pybind11
}

cross_compiler() {
  CXX=$(command -v aarch64-linux-gnu-g++ || true)
  [ -z "$CXX" ] || return 0
  local folder=$EMULATED/cross/usr
  packages "$EMULATED/cross" g++-aarch64-linux-gnu || skip "no cross compiler, apt-get has none"
  # Its linker script names the folders where it would be installed, its libraries lie elsewhere.
  sed -i 's|/usr/aarch64-linux-gnu/lib/||g' "$folder/aarch64-linux-gnu/lib/libc.so"
  export LD_LIBRARY_PATH=$folder/lib/x86_64-linux-gnu
  CXX=$folder/bin/aarch64-linux-gnu-g++
}

build() {
  rm -rf "$CHECKOUT" && mkdir -p "$CHECKOUT"
  git ls-files -z fastcl tests | xargs -0 cp --parents -t "$CHECKOUT"
  # The command of CONTRIBUTING.md.
  "$BIN/cmake" -G Ninja -S . -B "$EMULATED/arm-build" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER="$CXX" \
    -DPython_EXECUTABLE="$EMULATED/arm/bin/python" \
    -DPython_INCLUDE_DIR="$DEBIAN/usr/include/python3.11" \
    -DCMAKE_CXX_FLAGS="-idirafter $DEBIAN/usr/include" \
    -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DFASTCL_CUDA=OFF -DCMAKE_MAKE_PROGRAM="$BIN/ninja"
  "$BIN/cmake" --build "$EMULATED/arm-build"
  "$BIN/cmake" --install "$EMULATED/arm-build" --prefix "$CHECKOUT/fastcl"
}

[ "$(uname -m)" = x86_64 ] || skip "this machine is no x86-64"
BIN=$(dirname "$PYTHON")
find_qemu aarch64
mmdebstrap=$(command -v mmdebstrap || true)
[ -n "$mmdebstrap" ] || packages "$EMULATED/mmdebstrap" mmdebstrap || skip "no mmdebstrap"
mmdebstrap=${mmdebstrap:-$EMULATED/mmdebstrap/usr/bin/mmdebstrap}
once "$DEBIAN" fetch_debian || skip "no Debian for it, see $DEBIAN.log"
once "$SITE" fetch_packages || skip "no torch for it, see $SITE.log"
cross_compiler
once "$EMULATED/arm-cuda" "$PYTHON" tests/emulated/cuda_stub.py "$SITE/torch/lib" "$CXX" \
  "$EMULATED/arm-cuda" || skip "no stand-in for CUDA, see $EMULATED/arm-cuda.log"
environment "$EMULATED/arm" "$SITE" /usr/bin 3.11 "$qemu" -cpu neoverse-n1 -L "$DEBIAN" \
  -E LD_LIBRARY_PATH="$EMULATED/arm-cuda" -0 '"$0"' "$DEBIAN/usr/bin/python3.11"
build
check "$CHECKOUT" "$EMULATED/arm/bin/python"
