# An x86 processor with AVX-512, BF16 and AMX, on which every operator runs beside the base set.
set -euo pipefail
exec "$PWD/.venv/bin/python" tests/emulated/bochs.py
