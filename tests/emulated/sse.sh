# An x86 processor without AVX: a Nehalem, on which the 4 lanes of SSE run.
set -euo pipefail
processor="x86 without AVX"
. tests/emulated/common.sh

[ "$(uname -m)" = x86_64 ] || skip "this machine is no x86-64"
find_qemu x86_64
real=$(readlink -f "$PYTHON")
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
environment "$EMULATED/sse" "$site" "$(dirname "$real")" "$version" \
  "$qemu" -cpu Nehalem -0 '"$0"' "$real"
check "$PWD" "$EMULATED/sse/bin/python"
