"""Hands the build to CMake; FASTCL_BUILD=0 installs the pure-Python package."""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configure, build and install the two libraries into the package folder."""

    def build_extension(self, ext: Extension) -> None:
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        targets = [Path(self.build_lib).resolve() / "fastcl"]
        if self.editable_mode:  # setuptools carries back only the declared extension
            targets.append(ROOT / "fastcl")
        configure = [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Release"]
        subprocess.check_call(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *configure])
        subprocess.check_call(["cmake", "--build", build])
        for target in targets:
            subprocess.check_call(["cmake", "--install", build, "--prefix", target])

    def get_outputs(self) -> list[str]:
        return []


BUILD = os.environ.get("FASTCL_BUILD", "1") != "0"
setup(
    ext_modules=[Extension("fastcl._C", [])] if BUILD else [],
    cmdclass={"build_ext": CMakeBuild},
)
