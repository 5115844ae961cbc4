"""What a type checker makes of a user's code, and that no public signature has a gap."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastcl

ROOT = Path(__file__).resolve().parents[1]
TYPED = ROOT / "tests" / "typed"
PUBLIC = [
    "fastcl", "fastcl.functional", "fastcl.losses", "fastcl.methods", "fastcl.distributed",
    "fastcl.views", "fastcl.pretext", "fastcl.compat.lightly", "fastcl.compat.open_clip",
    "fastcl.compat.supcontrast", "fastcl.compat.info_nce", "fastcl.compat.solo",
]  # fmt: skip


def gaps(name, function):
    """The parameters without a type, and what is returned, of a public function or method."""
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls"):
            yield f"{name}({parameter.name})"
    if signature.return_annotation is signature.empty:
        yield f"{name} ->"


def public(module):
    """Functions and methods of a module by name, those of classes that are fastcl's own."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    for name in names:
        x = getattr(module, name)
        if not getattr(x, "__module__", "").startswith("fastcl"):
            continue
        if inspect.isclass(x):
            for method, f in vars(x).items():
                if inspect.isfunction(f) and (method == "__init__" or not method.startswith("_")):
                    yield f"{module.__name__}.{name}.{method}", f
        elif inspect.isfunction(x):
            yield f"{module.__name__}.{name}", x


@pytest.mark.parametrize("name", PUBLIC)
def test_public_signatures_have_no_gap(name):
    found = list(public(importlib.import_module(name)))
    assert found
    assert [gap for each, f in found for gap in gaps(each, f)] == []


def test_a_gap_is_found():
    def function(x: int, y, *, z=None) -> None: ...

    assert list(gaps("f", function)) == ["f(y)", "f(z)"]
    assert list(gaps("g", lambda x: x)) == ["g(x)", "g ->"]


def reported(*files, cache):
    """The codes of mypy's errors by file and line."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=",
         f"--cache-dir={cache}", *files],
        cwd=TYPED, env={**os.environ, "MYPYPATH": str(Path(fastcl.__file__).parents[1])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(\w+)\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    return {(name, int(line), code) for name, line, code in found}


@pytest.mark.slow  # mypy reads all of torch
def test_a_type_checker_takes_what_is_right_and_refuses_what_is_wrong(tmp_path):
    pytest.importorskip("mypy")
    lines = (TYPED / "wrong.py").read_text().splitlines()
    codes = [re.search(r"  # ([a-z-]+)$", line) for line in lines]
    wanted = {("wrong", i, code[1]) for i, code in enumerate(codes, 1) if code}
    assert len(wanted) > 10
    assert reported("right.py", "wrong.py", cache=tmp_path) == wanted
