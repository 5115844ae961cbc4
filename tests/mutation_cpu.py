"""Mutants of csrc/cpu: one operator or constant of a line, as mull needs clang.

Only what includes the changed file is compiled, once more, for one instruction set: the widest of
this processor, or the narrowest where the widest does not see the change. The other objects are
those of the whole tree. -O2 takes half the time of -O3; at -O1 GCC would fuse no products and sums.
"""

import filecmp
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

RULES = [
    (r"(?<![<>=!+\-*/&|])\+(?![+=])", "-"), (r"(?<=\w) - (?=\w)", " + "), (r" \* (?=\w)", " + "),
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "),
    (r" != ", " == "), (r" && ", " || "), (r" \|\| ", " && "), (r"(?<![\w.])0(?![\w.])", "1"),
    (r"(?<![\w.])1(?![\w.])", "0"), (r"(?<![\w.])2(?![\w.])", "3"), (r" \+= ", " -= "),
    (r"\btrue\b", "false"), (r"\bfalse\b", "true"), (r"std::min", "std::max"),
    (r"std::max(?=[(<])", "std::min"),
]  # fmt: skip
NO_CODE = ("#", "template", "namespace", "using", "//", "static_assert")
SETS = "base", "avx2", "wide", "avx512"


def mutants(tree: Path) -> list[dict]:
    return [
        {"module_path": str(path.relative_to(tree)), "start_pos_row": number + 1, "to": to,
         "begin": m.start(), "end": m.end()}
        for path in sorted((tree / "csrc" / "cpu").rglob("*.*"))
        for number, line in enumerate(path.read_text().splitlines())
        if not line.lstrip().startswith(NO_CODE)
        for pattern, to in RULES for m in re.finditer(pattern, line.split("//")[0])
    ]  # fmt: skip


def build_whole(tree: Path) -> None:
    """The library of the tree, in tree/build and as tree/whole.so."""
    settings = tree / "CMakeLists.txt"
    settings.write_text(settings.read_text().replace("FASTCL_OPTIMIZE -O3", "FASTCL_OPTIMIZE -O2"))
    options = "-DCMAKE_BUILD_TYPE=Release", "-DFASTCL_CUDA=OFF"
    python = f"-DPython_EXECUTABLE={sys.executable}"
    for command in (
        ["cmake", "-G", "Ninja", "-S", ".", "-B", "build", *options, python],
        ["cmake", "--build", "build", "--target", "fastcl_ops", "-j", "2"],
    ):
        subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    (tree / "whole.so").write_bytes((tree / "build" / "fastcl_ops.so").read_bytes())


def _said(build: Path, *tool: str) -> str:
    command = ["ninja", "-C", build, "-t", *tool]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def _objects(whole: Path) -> dict[str, tuple[str, str]]:
    """Of each object of the library its command and the text that lists what it includes."""
    build = whole / "build"
    commands = {
        x["output"].removeprefix(f"{build}/"): x["command"]
        for x in json.loads((build / "compile_commands.json").read_text())
    }
    found = {}
    for block in _said(build, "deps").split("\n\n"):
        name, _, includes = block.strip().partition(":")
        if name in commands:
            found[name] = commands[name], includes + "\n"
    return found


@cache
def _link(whole: Path) -> str:
    return _said(whole / "build", "commands", "fastcl_ops").strip().splitlines()[-1]


def _affected(whole: Path, file: str, instruction_set: str) -> list[str]:
    others = tuple(f"fastcl_{x}.dir" for x in SETS if x != instruction_set)
    found = [name for name, (_, includes) in _objects(whole).items() if f"/{file}\n" in includes]
    if not found:
        raise RuntimeError(f"no object of the library includes {file}")
    return [name for name in found if not any(x in name for x in others)]


@cache
def _best() -> str:
    import torch

    name = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": "avx512", "AVX2": "avx2"}.get(name, "base")


def program(tree: Path, whole: Path, file: str) -> bool | None:
    """tree/fastcl/fastcl_ops.so with the file as it is in the tree. None: it does not compile;
    False: the compiler makes the same program, as of what another processor runs."""
    link, different = _link(whole), False
    out = tree / "objects"
    out.mkdir(exist_ok=True)
    for instruction_set in dict.fromkeys((_best(), "base")):
        for number, name in enumerate(_affected(whole, file, instruction_set)):
            command = _objects(whole)[name][0].replace(f"{whole}/csrc", f"{tree}/csrc")
            made = out / f"{number}.o"
            words = shlex.split(command)
            words[words.index("-o") + 1] = str(made)
            if subprocess.run(words, cwd=whole / "build", capture_output=True).returncode:
                return None
            if not filecmp.cmp(made, whole / "build" / name, shallow=False):
                different = True
                link = link.replace(f" {name} ", f" {made} ")
        if different:
            break
    if different:
        link = link.replace(" -o fastcl_ops.so ", f" -o {tree}/fastcl/fastcl_ops.so ")
        (tree / "fastcl" / "fastcl_ops.so").unlink(missing_ok=True)
        subprocess.run(link, cwd=whole / "build", shell=True, check=True, capture_output=True)
    return different


def mutated(lines: list[str], mutant: dict) -> list[str]:
    at, old = mutant["start_pos_row"] - 1, lines[mutant["start_pos_row"] - 1]
    new = old[: mutant["begin"]] + mutant["to"] + old[mutant["end"] :]
    return [*lines[:at], new, *lines[at + 1 :]]
