"""What makes the wheels: a program for an older C library, and a wheel for another Python."""

import base64
import csv
import hashlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "wheels"
SOURCE = """
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
void* start(void* x) { return x; }
double f(double x) {
  pthread_t thread;
  pthread_create(&thread, 0, start, dlsym(0, "f"));
  return exp(x) + pow(x, x);
}
"""

needs_gcc = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc") or not shutil.which("readelf"),
    reason="needs gcc and binutils on Linux",
)


def newest(library):
    """The version of the C library that a program needs, and the libraries that it names."""
    done = subprocess.run(
        ["readelf", "-W", "--dyn-syms", "-d", library], capture_output=True, text=True, check=True
    ).stdout
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", done)
    return max((int(a), int(b)) for a, b in versions), re.findall(r"NEEDED.*\[(.*)\]", done)


@needs_gcc
def test_a_program_links_for_an_older_c_library(tmp_path):
    source = tmp_path / "f.c"
    source.write_text(SOURCE)

    def linked(name, *options):
        command = ["gcc", "-shared", "-fPIC", "-fno-builtin", *options, source, "-lm"]
        subprocess.run([*command, "-o", tmp_path / name], check=True)
        return newest(tmp_path / name)

    if linked("today.so")[0] <= (2, 28):
        pytest.skip("the system's own C library is that old")
    tool = [sys.executable, TOOLS / "old_glibc.py", tmp_path / "glibc"]
    told = subprocess.run(tool, capture_output=True, text=True, check=True).stdout.split()
    version, named = linked("old.so", *told)
    assert version <= (2, 28)
    # Where they are libraries of their own, someone has to load them.
    assert {"libpthread.so.0", "libdl.so.2"} <= set(named)


@needs_gcc
def test_what_an_older_c_library_lacks_does_not_link(tmp_path):
    source = tmp_path / "f.c"
    source.write_text("int arc4random(void); int f(void) { return arc4random(); }")
    tool = [sys.executable, TOOLS / "old_glibc.py", tmp_path / "glibc"]
    told = subprocess.run(tool, capture_output=True, text=True, check=True).stdout.split()
    command = ["gcc", "-shared", "-fPIC", *told, "-Wl,-z,defs", source, "-o", tmp_path / "f.so"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "arc4random" in done.stderr


def test_a_wheel_for_another_python(tmp_path):
    wheel = tmp_path / "fastcl-1.0-cp311-cp311-linux_x86_64.whl"
    about = "fastcl-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("fastcl/_C.cpython-311-x86_64-linux-gnu.so", "old")
        out.writestr("fastcl/fastcl_ops.so", "same")
        out.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n")
        out.writestr(f"{about}/RECORD", "")
    library = tmp_path / "_C.cpython-313-x86_64-linux-gnu.so"
    library.write_text("new")
    write = runpy.run_path(str(TOOLS / "with_python.py"))["write"]
    with zipfile.ZipFile(write("cp313", library, wheel)) as made:
        files = {name: made.read(name) for name in made.namelist()}
    assert made.filename.endswith("fastcl-1.0-cp313-cp313-linux_x86_64.whl")
    assert files[f"fastcl/{library.name}"] == b"new" and files["fastcl/fastcl_ops.so"] == b"same"
    assert not any("cpython-311" in name for name in files)
    assert b"Tag: cp313-cp313-linux_x86_64\n" in files[f"{about}/WHEEL"]
    record = list(csv.reader(files.pop(f"{about}/RECORD").decode().splitlines()))
    assert record.pop() == [f"{about}/RECORD", "", ""]
    assert {name for name, *_ in record} == set(files)
    for name, digest, size in record:
        expected = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).decode()
        assert (digest, int(size)) == (f"sha256={expected.rstrip('=')}", len(files[name]))


def test_the_example_that_wheels_are_tried_with_is_the_readmes():
    example = runpy.run_path(str(TOOLS / "try_wheels.py"))["example"]()
    assert "nt_xent" in example and "backward" in example
