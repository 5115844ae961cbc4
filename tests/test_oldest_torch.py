"""csrc compiles against the headers of the oldest torch that the package names."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEADERS = ROOT / "build" / "oldest" / "torch" / "include"
INCLUDE = re.compile(r'#include ["<](torch/|.*(tensor|problem)\.h")')
SOURCES = [p for p in sorted((ROOT / "csrc").rglob("*.cpp")) if INCLUDE.search(p.read_text())]
OLDEST = re.search(r"torch>=(\d+)\.(\d+)", (ROOT / "pyproject.toml").read_text()).groups()

fetched = pytest.mark.skipif(
    not HEADERS.exists(), reason="no old headers: make test-oldest fetches them"
)


@fetched
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_it_compiles(source):
    """With what is for CUDA alone; the compiler reads and links nothing."""
    flags = ["-std=c++20", "-fsyntax-only", "-DFASTCL_CUDA"]
    flags += ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-isystem", HEADERS, "-I", ROOT / "csrc"]
    done = subprocess.run(["c++", *flags, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_operator_is_compiled():
    assert set((ROOT / "csrc" / "ops").glob("*.cpp")) <= {*SOURCES}


@fetched
def test_the_headers_are_of_that_release():
    text = (HEADERS / "torch" / "headeronly" / "version.h").read_text()
    found = [re.search(rf"#define TORCH_VERSION_{x} (\d+)", text) for x in ("MAJOR", "MINOR")]
    assert tuple(x.group(1) for x in found) == OLDEST


def test_the_oldest_torch_is_what_the_package_names():
    major, minor = map(int, OLDEST)
    assert f'"torch=={major}.{minor}.0"' in (ROOT / "Makefile").read_text()
    text = (ROOT / "CMakeLists.txt").read_text()
    assert f"TORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000" in text
