"""How many faults the tests of `make test` see: a seeded sample of mutants in a copy of the tree.

``python tests/mutation.py functional --seconds 600`` by cosmic-ray (``pip install --target
build/cosmic-ray cosmic-ray``); ``... cpu`` by changes of one operator or constant of a line of
csrc/cpu/**/*.cpp, as mull needs clang. A mutant is run against the test files named after its file.
Every mutant is a line of build/mutation/PART.jsonl; a run goes on where the last one ended.
"""

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutation"
TREE = WORK / "tree"
LIMIT = 240  # seconds; who takes longer hangs, and is seen

EVERY = "losses bad_input equivalences fuzz modules refused_or_whole duplicates"
CONTRAST = f"{EVERY} positives positive_errors positive_edges positive_laws retrieval golden"
KERNEL = "cpu_kernel block_borders contrast_mean contrast_self contrast_own limits"
# Test files, and words of which one is in the names of the tests; without an entry the stem.
FUNCTIONAL = {
    "noise": ("noise bank nce fuzz", "noise or alias or Alias or nce"),
    "product": ("product", ""),
    "packed": ("random_views_input views_decode views fuzz", ""),
    "random_views": ("random_views random_views_input random_views_laws fuzz", "view"),
    "view_memory": ("views_out views_decode", ""),
    "view_parameters": ("random_views_input random_views draw", ""),
    "sinkhorn": ("sinkhorn bad_input fuzz", "sinkhorn or swav"),
    "unit_rows": ("unit_rows bad_input fuzz", "unit_rows"),
    "soft_cross_entropy": ("soft_cross_entropy losses", "cross_entropy"),
    "nt_xent": (f"{EVERY} properties", "nt_xent or dcl or flat"),
    "debiased": (CONTRAST, "debiased or hcl"),
    "nce": (f"{EVERY} nce", "nce"),
    "rows": (EVERY, "byol or simsiam or row_products or sim_cse or moco or nt_xent"),
    "levels": (CONTRAST, "contrast or level or positive"),
    "blocks": (CONTRAST, "contrast or retrieval"),
    **{name: (CONTRAST, name) for name in ("mil_nce", "matryoshka", "rince", "retrieval")},
    **{
        name: (CONTRAST, "contrast or positive or any_options or rows_as or false")
        for name in ("asked", "contrast", "contrast_ways", "pairs", "positives")
    },
}
CPU = {
    **{name: name for name in ("bank", "queue", "momentum", "nce", "sinkhorn", "unit_rows")},
    **{name: "pair_products" for name in ("pairs", "emulated", "avx512bf16", "contrast_pairs")},
    "sinkhorn_scaling": "sinkhorn", "soft_cross_entropy": "soft_cross_entropy",
    "product": "product nested_contrast", "nested_contrast": "nested_contrast",
    "random_views": "random_views_kernel random_views_laws", "max_sim": "max_sim",
    "draw_views": "draw_kernel",
    "sigmoid_contrast": "block_borders cpu_kernel",
    "instruction_set": "instruction_sets cpu_kernel",
}  # fmt: skip
RULES = [
    (r"(?<![<>=!+\-*/&|])\+(?![+=])", "-"), (r"(?<=\w) - (?=\w)", " + "), (r" \* (?=\w)", " + "),
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "),
    (r" != ", " == "), (r" && ", " || "), (r" \|\| ", " && "), (r"(?<![\w.])0(?![\w.])", "1"),
    (r"(?<![\w.])1(?![\w.])", "0"), (r"(?<![\w.])2(?![\w.])", "3"), (r" \+= ", " -= "),
    (r"\btrue\b", "false"), (r"\bfalse\b", "true"), (r"std::min", "std::max"),
    (r"std::max(?=[(<])", "std::min"),
]  # fmt: skip


def survives(files: str, words: str = "") -> bool:
    """Whether the tests see nothing."""
    tests = [f"tests/test_{name}.py" for name in files.split()]
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
               "-m", "not slow", *(["-k", words] if words else []), *tests]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=TREE, env=environment, capture_output=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode in (3, 4, 5):  # no tests, a wrong call; below 0 it crashed, and was seen
        raise RuntimeError(done.stdout.decode()[-500:] + done.stderr.decode()[-500:])
    return done.returncode == 0


@cache
def check_sound(files: str, words: str = "") -> None:
    """Tests that fail by themselves would kill every mutant."""
    if not survives(files, words):
        raise RuntimeError(f"the tests fail without a mutant: {files}, -k {words!r}")


def python_mutants() -> list[dict]:
    """Of every operator of cosmic-ray but unions, which are annotations and never run."""
    settings = WORK / "cosmic-ray.toml"
    settings.write_text(
        '[cosmic-ray]\nmodule-path = "fastcl/functional"\ntimeout = 1.0\nexcluded-modules = []\n'
        'test-command = "true"\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    command = [sys.executable, "-m", "cosmic_ray.cli", "init", settings, WORK / "all.sqlite"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "build" / "cosmic-ray")}
    subprocess.run([*command, "--force"], cwd=TREE, env=environment, check=True)
    with sqlite3.connect(WORK / "all.sqlite") as found:
        found.row_factory = sqlite3.Row
        rows = found.execute(
            "select module_path, operator_name, operator_args, occurrence, start_pos_row from "
            "mutation_specs order by module_path, start_pos_row, start_pos_col, operator_name, "
            "occurrence"
        )
        mutants = [dict(row) for row in rows]
    return [
        m for m in mutants
        if "BinaryOperator_BitOr" not in m["operator_name"]
        and not m["module_path"].endswith("__init__.py")
    ]  # fmt: skip


def run_python(mutant: dict) -> dict:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    arguments = json.loads(mutant["operator_args"])
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    operator = get_operator(mutant["operator_name"])(**arguments)
    path = TREE / mutant["module_path"]
    text = path.read_text()
    files, words = FUNCTIONAL.get(path.stem, (EVERY, path.stem))
    check_sound(files, words)
    try:
        path.write_text(mutate_code(text, operator, mutant["occurrence"]))
        mutant["new"] = _changed(text, path.read_text())
        mutant["survived"] = survives(files, words)
    finally:
        path.write_text(text)
    return mutant


def _changed(old: str, new: str) -> str:
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    return next((f"{a.strip()} -> {b.strip()}" for a, b in pairs if a != b), "")


def cpp_mutants() -> list[dict]:
    return [
        {"module_path": str(path.relative_to(TREE)), "start_pos_row": number + 1, "to": to,
         "begin": m.start(), "end": m.end()}
        for path in sorted((TREE / "csrc" / "cpu").rglob("*.cpp"))
        if path.stem not in ("threads", "amx")  # torch's own pool; no such processor here
        for number, line in enumerate(path.read_text().splitlines())
        if not line.lstrip().startswith(("#", "template", "namespace", "using", "//"))
        for pattern, to in RULES for m in re.finditer(pattern, line.split("//")[0])
    ]  # fmt: skip


def run_cpp(mutant: dict) -> dict:
    path = TREE / mutant["module_path"]
    text = path.read_text()
    lines = text.split("\n")
    at, old = mutant["start_pos_row"] - 1, lines[mutant["start_pos_row"] - 1]
    files = CPU.get(path.stem, KERNEL)
    check_sound(files)
    lines[at] = old[: mutant["begin"]] + mutant["to"] + old[mutant["end"] :]
    try:
        path.write_text("\n".join(lines))
        mutant["new"] = f"{old.strip()} -> {lines[at].strip()}"
        if build():
            mutant["survived"] = survives(files)
    finally:
        path.write_text(text)
        shutil.copy(TREE / "whole.so", TREE / "fastcl" / "fastcl_ops.so")
    return mutant


def build() -> bool:
    done = subprocess.run(["cmake", "--build", "build", "--target", "fastcl_ops"], cwd=TREE,
                          capture_output=True)  # fmt: skip
    if done.returncode == 0:
        shutil.copy(TREE / "build" / "fastcl_ops.so", TREE / "fastcl" / "fastcl_ops.so")
    return done.returncode == 0


def copy_tree(part: str) -> None:
    shutil.rmtree(TREE, ignore_errors=True)
    TREE.mkdir(parents=True)
    for name in ("fastcl", "csrc", "tests", "benchmarks", "examples", "docs"):
        shutil.copytree(ROOT / name, TREE / name)
    for name in ("CMakeLists.txt", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, TREE / name)
    if part == "cpu":
        options = "-DCMAKE_BUILD_TYPE=Release", "-DFASTCL_CUDA=OFF"
        subprocess.run(["cmake", "-G", "Ninja", "-S", ".", "-B", "build", *options], cwd=TREE,
                       check=True, capture_output=True)  # fmt: skip
        if not build():
            sys.exit("the copy does not compile")
        shutil.copy(TREE / "fastcl" / "fastcl_ops.so", TREE / "whole.so")


def sample(part: str, seconds: float) -> Iterator[dict]:
    log = WORK / f"{part}.jsonl"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    mutants, run = (
        (python_mutants(), run_python) if part == "functional" else (cpp_mutants(), run_cpp)
    )
    print(f"{len(mutants)} mutants of {part}, {done} done before")
    random.Random(0).shuffle(mutants)
    end = time.monotonic() + seconds
    for mutant in mutants[done:]:
        if time.monotonic() > end:
            return
        start = time.monotonic()
        found = run(mutant) | {"seconds": round(time.monotonic() - start, 1)}
        with log.open("a") as file:
            file.write(json.dumps(found) + "\n")
        yield found


def main() -> None:
    global TREE
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("functional", "cpu"))
    parser.add_argument("--seconds", type=float, default=600)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "build" / "cosmic-ray"))
    TREE = WORK / asked.part
    copy_tree(asked.part)
    for x in sample(asked.part, asked.seconds):
        outcome = {True: "SURVIVED", False: "killed", None: "no program"}[x.get("survived")]
        print(
            outcome, x["seconds"], f"{x['module_path']}:{x['start_pos_row']}", x["new"], flush=True
        )


if __name__ == "__main__":
    main()
