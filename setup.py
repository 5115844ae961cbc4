"""Hands the build to CMake; FASTCL_BUILD=0 installs the pure-Python package."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
BUILD = os.environ.get("FASTCL_BUILD", "1") != "0"
# Of an environment that nobody activated, too: its cmake and ninja lie beside its Python.
SCRIPTS = sysconfig.get_path("scripts")


class CMakeBuild(build_ext):
    """Configure, build and install the two libraries into the package folder."""

    def build_extension(self, ext: Extension) -> None:
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        targets = [Path(self.build_lib).resolve() / "fastcl"]
        if self.editable_mode:  # setuptools carries back only the declared extension
            targets.append(ROOT / "fastcl")
        configure = [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Release"]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        subprocess.check_call(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *configure])
        subprocess.check_call(["cmake", "--build", build])
        for target in targets:
            subprocess.check_call(["cmake", "--install", build, "--prefix", target])

    def get_outputs(self) -> list[str]:
        return []


class StampedPython(build_py):
    """The modules, with the version of this build in version.py."""

    def run(self) -> None:
        super().run()
        stamped = Path(self.build_lib) / "fastcl" / "version.py"
        if not self.editable_mode:
            stamped.write_text(f'__version__ = "{VERSION}"\n')


def current_version() -> str:
    """Of a source archive the one it was made with; of a checkout that of its last tag `v1.2.3`,
    or past it `1.2.4.dev5+gabc`; else what version.py says."""
    archive = ROOT / "PKG-INFO"
    if archive.is_file():
        return re.search(r"^Version: (.+)$", archive.read_text(), re.MULTILINE).group(1)
    said = re.search(r'"(.+)"', (ROOT / "fastcl" / "version.py").read_text()).group(1)
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return said
    command = ["git", "describe", "--tags", "--long", "--match", "v[0-9]*"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    tag = re.fullmatch(r"v([\d.]+)\.(\d+)((?:a|b|rc)\d+)?-(\d+)-(g\w+)\s*", told)
    if tag is None:
        return said
    start, last, early, past, commit = tag.groups(default="")
    if past == "0":
        return f"{start}.{last}{early}"
    after = re.sub(r"\d+", lambda number: str(int(number[0]) + 1), early)
    return f"{start}.{int(last) + (not early)}{after}.dev{past}+{commit}"


def found(name: str) -> str | None:
    """The version of what a build needs: a package, or a program from anywhere."""
    try:
        return version(name)
    except PackageNotFoundError:
        if name not in ("cmake", "ninja") or shutil.which(name) is None:
            return None
        told = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
        return re.search(r"[\d.]+|$", told).group()


def numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def missing(compiled: bool) -> list[str]:
    """What a build without isolation has to find and does not, as pip takes it."""
    import tomllib  # of Python 3.11, which an older one is told by setuptools

    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    names = [(line, *line.split(">=")) for line in requires if compiled or "setuptools" in line]
    if "-DTORCH_DIR=" in os.environ.get("CMAKE_ARGS", ""):  # only its headers are needed
        names = [found for found in names if found[1] != "torch"]
    there = {line: (found(name), least) for line, name, *least in names}
    return [
        line
        for line, (have, least) in there.items()
        if have is None or (least and numbers(have) < numbers(least[0]))
    ]


def check() -> None:
    """Leave with one message that names all that is missing, before CMake or setuptools stumble."""
    # Listing and packing the sources compiles nothing.
    compiled = BUILD and not {"egg_info", "sdist"} & set(sys.argv)
    packages = missing(compiled) if sys.version_info >= (3, 11) else []
    compilers = [os.environ.get("CXX", "c++").split()[0], "g++", "clang++"]
    no_compiler = compiled and not any(map(shutil.which, compilers))
    if not packages and not no_compiler:
        return
    lines = [f"fastcl is not built: {sys.executable} lacks what its build needs."]
    if packages:
        quoted = " ".join(f"'{line}'" for line in packages)
        lines.append(f"  install with:  {sys.executable} -m pip install {quoted}")
    if no_compiler:
        lines.append("  a C++20 compiler: gcc 11 or clang 14, or newer, on PATH or in CXX")
    if no_compiler or packages and not packages[0].startswith("setuptools"):
        lines.append("  or leave out the compiled part: set FASTCL_BUILD=0 and install again")
    sys.exit("\n".join(lines))


VERSION = current_version()
os.environ["PATH"] = os.pathsep.join([SCRIPTS, os.environ.get("PATH", "")])
check()
setup(
    version=VERSION,
    ext_modules=[Extension("fastcl._C", [])] if BUILD else [],
    cmdclass={"build_ext": CMakeBuild, "build_py": StampedPython},
)
