"""What a source archive holds, what an editable install is, what a build says while it is made and
where it cannot be."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from fastcl.commands.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
# The first versions of 3.11 have no filters.
UNPACK = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
BACKEND = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"


def tracked(*paths):
    done = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.split()


def built(hook, tmp_path):
    """What a hook of the build backend makes of a copy of the tracked files."""
    copy = tmp_path / "copy"
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    done = subprocess.run(
        [sys.executable, "-c", BACKEND, hook, tmp_path],
        cwd=copy, capture_output=True, text=True, env={**os.environ, "FASTCL_BUILD": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return tmp_path / done.stdout.split()[-1]


@pytest.fixture
def sources(tmp_path):
    """The source archive, unpacked."""
    with tarfile.open(built("build_sdist", tmp_path)) as archive:
        archive.extractall(tmp_path / "sources", **UNPACK)
    (folder,) = (tmp_path / "sources").iterdir()
    return folder


def test_the_source_archive_holds_what_a_build_needs(sources):
    alone = "setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "CHANGELOG.md"
    names = tracked("csrc", "fastcl", *alone)
    assert len(names) > 200 and set(alone) <= set(names)
    assert [name for name in names if not (sources / name).is_file()] == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_cmake_takes_the_source_archive(sources):
    build = sources / "build"
    options = [f"-DPython_EXECUTABLE={sys.executable}", "-DFASTCL_CUDA=OFF"]
    done = subprocess.run(
        ["cmake", "-G", "Ninja", "-S", sources, "-B", build, *options],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "contrast_forward.cpp" in (build / "build.ninja").read_text()


def test_an_editable_install_is_a_path(tmp_path):
    """Type checkers read paths in .pth files and run no code of a finder."""
    with zipfile.ZipFile(built("build_editable", tmp_path)) as wheel:
        texts = {name: wheel.read(name).decode() for name in wheel.namelist()}
    outside = {name: text for name, text in texts.items() if ".dist-info/" not in name}
    (line,) = "".join(outside.values()).split()
    assert [Path(name).suffix for name in outside] == [".pth"]
    assert (Path(line) / "fastcl" / "py.typed").is_file()


SETUP = """
import importlib.metadata, runpy, shutil, sys
there = importlib.metadata.version
def version(name):
    if name in {absent}:
        raise importlib.metadata.PackageNotFoundError(name)
    return {old}.get(name) or there(name)
importlib.metadata.version = version
if {bare}:
    shutil.which = lambda *_: None
sys.argv = ["setup.py", "--version"]
runpy.run_path("setup.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("absent", "old", "bare", "compiled", "told"),
    [
        (["pybind11", "torch"], {}, False, True, ["'torch>=2.11' 'pybind11>=2.13'\n"]),
        ([], {"setuptools": "65.5.0"}, False, True, ["install 'setuptools>=77'\n"]),
        (["cmake", "ninja"], {}, True, True, ["'cmake>=3.25' 'ninja'\n", "C++20", "BUILD=0"]),
        (["pybind11"], {"torch": "2.13.0+cpu", "setuptools": "77"}, True, False, []),
    ],
)
def test_a_build_names_all_that_is_missing(absent, old, bare, compiled, told):
    script = SETUP.format(absent=absent, old=old, bare=bare)
    environment = {**os.environ, "FASTCL_BUILD": str(int(compiled))}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode == 0) == (not told), done.stderr
    assert done.stderr.startswith("fastcl is not built: ") == bool(told)
    assert [text for text in told if text not in done.stderr] == []
    assert "Traceback" not in done.stderr


def test_the_hints_name_what_the_extras_hold():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras.pop("all") == [f"fastcl[{','.join(EXTRAS)}]"]
    del extras["dev"], extras["docs"]
    assert {name: list(packages.values()) for name, packages in EXTRAS.items()} == extras
    page = (ROOT / "docs" / "install.md").read_text()
    assert [name for name in (*extras, "all") if f"`{name}`" not in page] == []


PYTHON = """#!/bin/sh
echo "python $*"
case "$*" in *venv*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_what_it_is_doing(tmp_path):
    for name in ("Makefile", "pyproject.toml", "setup.py", "CMakeLists.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "build", f"PYTHON={python}"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert words == ["creating", "python", "installing", "python", "compiling", "python", "built:"]
