#!/usr/bin/env bash
# csrc/cpu under the sanitizers of GCC. `sanitize.sh [memory|threads|tests]...`, or all three:
#   memory   AddressSanitizer and UndefinedBehaviorSanitizer: every kernel in a driver without torch
#   tests    the same below Python: raw operators with arguments that do not fit, CASES_OF_FUZZ random
#            problems of every function, every loss at the borders of lanes and blocks
#   threads  ThreadSanitizer over the driver; torch's own threads are not compiled for it
# A fault of each kind is planted first and must be reported. Minutes of processor time on an Intel
# Xeon (Emerald Rapids), busy with other work, build and run: memory 5.3 and 0.5; tests, with the
# objects of memory, 1.6 and 2.8 (0.4 raw operators, 1.1 random problems, 1.3 borders); threads 2.2
# and 0.7.
set -euo pipefail
cd "$(dirname "$0")/.."
memory=build/sanitize threads=build/sanitize-threads

build() {  # folder, sanitizers, targets
  mkdir -p "$1"
  cmake -G Ninja -S . -B "$1" -DCMAKE_BUILD_TYPE= -DFASTCL_CUDA=OFF -DFASTCL_SANITIZE="$2" >"$1/log"
  cmake --build "$1" --target "${@:3}" >"$1/log" || { tail -50 "$1/log"; exit 1; }
}

must_report() {  # words, command
  local said
  if said=$("${@:2}" 2>&1) || ! grep -q "$1" <<<"$said"; then
    echo "a planted fault was not reported: ${*:2}"
    exit 1
  fi
}

check_memory() {
  build $memory address,undefined fastcl_threads
  must_report "heap-buffer-overflow" $memory/fastcl_threads beyond
  must_report "signed integer overflow" $memory/fastcl_threads overflow
  $memory/fastcl_threads
}

check_threads() {
  build $threads thread fastcl_threads
  must_report "data race" $threads/fastcl_threads race
  $threads/fastcl_threads
}

check_tests() (
  build $memory address,undefined all
  # The package with these libraries in place of its own.
  rm -rf $memory/site
  mkdir $memory/site
  cp -r fastcl $memory/site/
  cp $memory/*.so $memory/site/fastcl/
  export PYTHONPATH=$PWD/$memory/site:$PWD:$PWD/tests
  # Python and torch keep memory to the end, which is no leak.
  export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
  local libraries=()
  for name in asan ubsan stdc++; do libraries+=("$(gcc -print-file-name=lib$name.so)"); done
  export LD_PRELOAD="${libraries[*]}"
  cd tests  # not beside the package that is not sanitized
  local python=../.venv/bin/python
  $python -c "import fastcl; assert '$memory' in fastcl.__file__, fastcl.__file__"
  $python raw_calls.py 0 >"../$memory/raw_calls" || { tail -3 "../$memory/raw_calls"; exit 1; }
  $python -W ignore -m fuzz --cases "${CASES_OF_FUZZ:-12}" --seed 1 --without file
  OMP_NUM_THREADS=1 $python -m pytest -q -n auto -m "not slow" \
    test_block_borders.py test_jpeg_boxes.py
)

for part in "${@:-memory threads tests}"; do
  for one in $part; do "check_$one"; done
done
