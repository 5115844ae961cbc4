#!/usr/bin/env bash
# make wheel: into dist/ go the source archive, a wheel made of that archive for the Python of .venv
# and for those in PYTHONS, and a wheel without a compiled part for everything else.
#   WITH      another environment than .venv that has torch and what builds
#   PYTHONS   further interpreters, with their headers, as in PYTHONS="python3.12 python3.13"
# On x86-64 Linux the compiled part is linked against the C library of 2018 (see old_glibc.py) and
# audited as manylinux_2_28; torch's own libraries stay torch's.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${WITH:-$PWD/.venv/bin/python}
work=$PWD/build/wheel
rm -rf "$work"
mkdir -p "$work" dist

libraries=$("$python" wheels/old_glibc.py "$work/glibc")
export LDFLAGS="$libraries ${LDFLAGS:-}" CMAKE_ARGS="-DFASTCL_PORTABLE=ON -DFASTCL_JPEG=OFF ${CMAKE_ARGS:-}"
# Without --wheel and --sdist the wheel is made of the archive, not of this folder.
"$python" -m build --no-isolation --outdir "$work/raw" .
mkdir "$work/sources"
tar -xzf "$work"/raw/fastcl-*.tar.gz -C "$work/sources" --strip-components=1
FASTCL_BUILD=0 "$python" -m build --wheel --no-isolation --outdir "$work/pure" "$work/sources"

torch=$("$python" -c 'import torch; print(torch.__path__[0])')
for other in ${PYTHONS:-}; do
  # Only _C knows Python; the rest is the same file for all.
  tag=$("$other" -c 'import sys; print(f"cp{sys.version_info.major}{sys.version_info.minor}")')
  "$other" -m venv "$work/$tag"
  "$work/$tag/bin/python" -m pip install --quiet 'pybind11>=2.13'
  # shellcheck disable=SC2086  # CMAKE_ARGS are several words
  cmake -G Ninja -S "$work/sources" -B "$work/cmake-$tag" -DCMAKE_BUILD_TYPE=Release \
    -DPython_EXECUTABLE="$work/$tag/bin/python" -DTORCH_DIR="$torch" $CMAKE_ARGS
  cmake --build "$work/cmake-$tag" --target _C
  "$python" wheels/with_python.py "$tag" "$work"/cmake-"$tag"/_C*.so "$work"/raw/fastcl-*-cp311-*.whl
done

for wheel in "$work"/raw/*.whl; do
  "$python" -m auditwheel repair --plat manylinux_2_28_x86_64 --only-plat \
    --strip --exclude 'libtorch*.so*' --exclude 'libc10*.so*' --wheel-dir "$work/audited" "$wheel"
done
rm -f dist/fastcl-*
cp "$work"/raw/*.tar.gz "$work"/pure/*.whl "$work"/audited/*.whl dist/
ls -l dist
