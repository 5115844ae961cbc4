# What the processors share. Sourced in the root, with set -euo pipefail.
EMULATED=$PWD/build/emulated
PYTHON=$PWD/.venv/bin/python

skip() {  # REASON
  echo "${processor:?}: skipped, $1"
  exit 0
}

# Once: a command whose output is a folder; it runs anew where it was interrupted. Behind || no
# shell stops at an error, so what it runs joins its commands by &&.
once() {  # FOLDER COMMAND...
  local folder=$1
  shift
  [ ! -e "$folder/.done" ] || return 0
  rm -rf "$folder" && mkdir -p "$folder" && "$@" >"$folder.log" 2>&1 && touch "$folder/.done"
}

# Debian's packages, with those they need and this machine lacks, unpacked and not installed.
unpack() {  # FOLDER PACKAGE...
  local folder=$1
  shift
  (
    mkdir "$folder/debs" && cd "$folder/debs" &&
      apt-get -s install --no-install-recommends "$@" >plan &&
      awk '/^Inst/ { print $2 }' plan | xargs -r apt-get download &&
      printf '%s\n' *.deb | xargs -I{} dpkg -x {} "$folder"
  )
}

packages() {  # FOLDER PACKAGE...: as above, unless they are there
  command -v apt-get >/dev/null && command -v dpkg >/dev/null && once "$1" unpack "$@"
}

find_qemu() {  # ARCHITECTURE
  qemu=$(command -v "qemu-$1-static" || command -v "qemu-$1" || true)
  [ -z "$qemu" ] || return 0
  qemu=$EMULATED/qemu/usr/bin/qemu-$1-static
  packages "$EMULATED/qemu" qemu-user-static || skip "no qemu-$1, and apt-get has none"
}

# An environment whose Python is emulated, and with it every process that a test starts.
environment() {  # FOLDER SITE_PACKAGES HOME VERSION COMMAND...
  local folder=$1 site=$2 home=$3 version=$4
  shift 4
  mkdir -p "$folder/bin" "$folder/lib/python$version"
  ln -sfn "$site" "$folder/lib/python$version/site-packages"
  printf 'home = %s\nversion = %s\n' "$home" "$version" >"$folder/pyvenv.cfg"
  printf '#!/bin/sh\nexec %s "$@"\n' "$*" >"$folder/bin/python"
  chmod +x "$folder/bin/python"
}

# Every loss where lanes and blocks end, and the small tests of the other kernels, in the checkout;
# large_buffer alone would take minutes.
check() {  # CHECKOUT PYTHON
  export OMP_NUM_THREADS=1 PYTHONPATH=$1 PYTHONDONTWRITEBYTECODE=1
  cd "$1"
  "$2" -c 'from fastcl.commands import doctor; print(doctor.report())' | tee "$EMULATED/doctor"
  grep -q 'base (4 lanes of float32), products of bfloat16: widened' "$EMULATED/doctor" ||
    { echo "$processor: the doctor sees another processor" && exit 1; }
  "$2" -m pytest -q -rfE -p no:cacheprovider --hypothesis-profile=emulated \
    -m "not slow" -k "not large_buffer" \
    tests/test_block_borders.py tests/test_{instruction_sets,pair_products,unit_rows}.py \
    tests/test_{queue,momentum,bank,nce,sinkhorn,soft_cross_entropy}.py
  echo "$processor: passed"
}
