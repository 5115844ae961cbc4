"""How many faults the tests of `make test` see: a seeded sample of mutants in copies of the tree.

``python tests/mutation.py functional --seconds 600`` by cosmic-ray (``pip install --target
build/cosmic-ray cosmic-ray``); ``... cpu`` by tests/mutation_cpu.py. The sample begins with one
mutant of every file. A mutant is run against the test files that mutation_tests.py names. Every
mutant is a line of build/mutation/PART.jsonl; a run goes on where the last one ended.
"""

import argparse
import json
import multiprocessing
import os
import queue
import random
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutation_cpu
import mutation_tests

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutation"
# Seconds of its processor, and of waiting, which a stopped process does not count; who takes longer
# hangs, and is seen.
LIMIT, PATIENCE = 240, 1200
SOUND: set[str] = set()
# What a process of the tests needs not import again.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["torch", "pytest", "hypothesis", "numpy", "torch.autograd.gradcheck"]
)


def _run_tests(tree: str, arguments: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    log = os.open(f"{tree}/said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": tree, "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:0] = [tree]
    sys.dont_write_bytecode = True
    import pytest
    from hypothesis import Phase, settings

    import fastcl

    assert fastcl.__file__.startswith(tree), fastcl.__file__
    # As in tests/conftest.py; whether a mutant is seen needs no smallest example.
    settings.register_profile(
        "mutation", derandomize=True, deadline=None, max_examples=30,
        phases=(Phase.explicit, Phase.generate),
    )  # fmt: skip
    os._exit(pytest.main(arguments))


def survives(tree: Path, tests: list[str], words: str = "") -> bool:
    """Whether the tests see nothing."""
    arguments = ["-q", "-x", "-W", "ignore", "-p", "no:cacheprovider", "-m", "not slow"]
    arguments += ["--hypothesis-profile=mutation", *(["-k", words] if words else []), *tests]
    process = SERVER.Process(target=_run_tests, args=(str(tree), arguments))
    process.start()
    for _ in range(PATIENCE):
        process.join(1)
        if process.exitcode is not None:
            break
    else:
        process.kill()
        process.join()
    if process.exitcode in (3, 4, 5):  # no tests, a wrong call; below 0 it crashed, and was seen
        raise RuntimeError((tree / "said").read_text()[-1000:])
    return process.exitcode == 0


def who_saw(tree: Path) -> str:
    """The test that failed, or how the process ended; without a mutant it must pass."""
    said = (tree / "said").read_text()
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", said, re.MULTILINE)
    if found is None:
        return "crashed or hung"
    if found[1] not in SOUND and not survives(tree, [found[1]]):
        raise RuntimeError(f"fails without a mutant: {found[1]}: {said[-1000:]}")
    SOUND.add(found[1])
    return found[1]


def python_mutants(tree: Path) -> list[dict]:
    """Of every operator of cosmic-ray but unions, which are annotations and never run."""
    settings = WORK / "cosmic-ray.toml"
    settings.write_text(
        '[cosmic-ray]\nmodule-path = "fastcl/functional"\ntimeout = 1.0\nexcluded-modules = []\n'
        'test-command = "true"\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    command = [sys.executable, "-m", "cosmic_ray.cli", "init", settings, WORK / "all.sqlite"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "build" / "cosmic-ray")}
    subprocess.run([*command, "--force"], cwd=tree, env=environment, check=True)
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


def run_python(mutant: dict, tree: Path) -> dict:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    arguments = json.loads(mutant["operator_args"])
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    operator = get_operator(mutant["operator_name"])(**arguments)
    path = tree / mutant["module_path"]
    text = path.read_text()
    tests, words = mutation_tests.of(mutant["module_path"])
    changed = mutate_code(text, operator, mutant["occurrence"])
    mutant["new"] = _changed(text, changed)
    try:
        compile(changed, path, "exec")
    except SyntaxError:  # the star before arguments by name is a product to cosmic-ray
        return mutant
    try:
        path.write_text(changed)
        mutant["survived"] = survives(tree, tests, words)
    finally:
        path.write_text(text)
    if not mutant["survived"]:
        mutant["seen_by"] = who_saw(tree)
    return mutant


def _changed(old: str, new: str) -> str:
    pairs = zip(old.splitlines(), new.splitlines(), strict=False)
    return next((f"{a.strip()} -> {b.strip()}" for a, b in pairs if a != b), "")


def run_cpp(mutant: dict, tree: Path) -> dict:
    path = tree / mutant["module_path"]
    text = path.read_text()
    tests, words = mutation_tests.of(mutant["module_path"])
    try:
        path.write_text("\n".join(mutation_cpu.mutated(text.split("\n"), mutant)))
        mutant["new"] = _changed(text, path.read_text())
        seen = mutation_cpu.program(tree, WORK / "cpu", mutant["module_path"])
        if seen is not None:
            mutant["equivalent"] = not seen
        if seen:
            mutant["survived"] = survives(tree, tests, words)
    finally:
        path.write_text(text)
    if mutant.get("survived") is False:
        shutil.copy(WORK / "cpu" / "whole.so", tree / "fastcl" / "fastcl_ops.so")
        mutant["seen_by"] = who_saw(tree)
    return mutant


def copy_tree(tree: Path) -> None:
    """What tests read; tree/build stays, so that only what changed is compiled again."""
    for name in ("fastcl", "csrc", "tests", "benchmarks", "examples", "docs"):
        shutil.rmtree(tree / name, ignore_errors=True)
        shutil.copytree(ROOT / name, tree / name)
    for name in ("CMakeLists.txt", "pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, tree / name)


def trees(part: str, workers: int) -> list[Path]:
    """A copy for each worker, with a library that its tests find sound."""
    found = [WORK / f"{part}-{i}" for i in range(workers)]
    if part == "cpu":
        copy_tree(WORK / part)
        mutation_cpu.build_whole(WORK / part)
    for tree in found:
        copy_tree(tree)
        if part == "cpu":
            shutil.copy(WORK / part / "whole.so", tree / "fastcl" / "fastcl_ops.so")
    return found


def in_order(mutants: list[dict]) -> list[dict]:
    """Drawn with a fixed seed: one of every file, then of all."""
    drawn = random.Random(0).sample(mutants, len(mutants))
    first = {m["module_path"]: m for m in reversed(drawn)}
    chosen = {id(m) for m in first.values()}
    return [m for m in drawn if id(m) in chosen] + [m for m in drawn if id(m) not in chosen]


def sample(part: str, seconds: float, workers: int = 1) -> Iterator[dict]:
    log = WORK / f"{part}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    free = queue.SimpleQueue()
    places = trees(part, workers)
    for tree in places:
        free.put(tree)
    find, run = (
        (python_mutants, run_python) if part == "functional" else (mutation_cpu.mutants, run_cpp)
    )
    mutants = in_order(find(places[0]))
    left = [m for m in mutants if not any(m.items() <= x.items() for x in done)]
    print(f"{len(mutants)} mutants of {part}, {len(done)} done before", flush=True)
    end = time.monotonic() + seconds

    def one(mutant: dict) -> dict | None:
        start, tree = time.monotonic(), free.get()
        try:
            if start > end:
                return None
            found = run(mutant, tree) | {"seconds": round(time.monotonic() - start, 1)}
        finally:
            free.put(tree)
        with log.open("a") as file:
            file.write(json.dumps(found) + "\n")
        return found

    with ThreadPoolExecutor(workers) as pool:
        yield from (x for x in pool.map(one, left) if x is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("functional", "cpu"))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "build" / "cosmic-ray"))
    os.environ |= {"OMP_NUM_THREADS": "1"}
    WORK.mkdir(parents=True, exist_ok=True)
    for x in sample(asked.part, asked.seconds, asked.workers):
        outcome = {True: "SURVIVED", False: "killed", None: "no program"}[x.get("survived")]
        outcome = "equivalent" if x.get("equivalent") else outcome
        print(
            outcome, x["seconds"], f"{x['module_path']}:{x['start_pos_row']}", x["new"], flush=True
        )


if __name__ == "__main__":
    main()
