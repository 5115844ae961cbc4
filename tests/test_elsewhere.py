"""csrc compiles and links for systems that this machine is not, against their oldest torch."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FETCHED = ROOT / "build" / "elsewhere"
# Where torch for it lies, and how a library of it begins: Mach-O of 64 bits, and PE.
SYSTEMS = {
    "aarch64-macos": (ROOT / "build" / "oldest" / "torch", b"\xcf\xfa\xed\xfe"),
    "x86_64-windows-gnu": (FETCHED / "windows" / "torch", b"MZ"),
}

fetched = pytest.mark.skipif(
    not (FETCHED / "zig").exists(), reason="no cross compiler: make test-elsewhere fetches it"
)


@fetched
@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_builds(system):
    """Every symbol is found in torch's libraries: both linkers refuse what is left open."""
    torch, start = SYSTEMS[system]
    build = FETCHED / system
    zig = FETCHED / "zig" / "ziglang" / "zig"
    configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DSYSTEM={system}", f"-DZIG={zig}", f"-DTORCH_DIR={torch}", "-DFASTCL_CUDA=OFF"]
    configure += [f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'tests' / 'emulated' / 'zig.cmake'}"]
    configure += ["-DCMAKE_CXX_FLAGS=-Werror"]
    library = build / ("fastcl_ops.dll" if "windows" in system else "fastcl_ops.so")
    library.unlink(missing_ok=True)
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(FETCHED / "cache")}
    for command in (configure, ["cmake", "--build", build, "--target", "fastcl_ops"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert library.read_bytes().startswith(start)
