"""The mutation score: its rows, what is said of them, and the tool."""

import csv
import json
import re
from pathlib import Path

import mutation
import mutation_cpu
import mutation_tests
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "benchmarks" / "results" / "mutation.csv"


def test_the_score_that_is_told_is_that_of_the_rows():
    rows = list(csv.DictReader(ROWS.open()))
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert {row["part"] for row in rows} <= {"functional", "cpu"}
    for row in rows:
        seen, equal, mutants = (int(row[name]) for name in ("killed", "equivalent", "mutants"))
        assert 0 < seen <= mutants - equal
        share = f"{100 * seen / (mutants - equal):.0f} %"
        told = rf"{seen} of {mutants - equal} mutants\s+of `[\w/]*{row['part']}`\s+\({share}\)"
        assert re.search(told, text), told


def test_names_of_test_files_are_there():
    paths = [f"{x}.cpp" for x in (*mutation_tests.CPU, "random_views_turn", "contrast")]
    paths += [f"{x}.py" for x in (*mutation_tests.FUNCTIONAL, "clip")]
    names = {name for path in paths for name in mutation_tests.of(path)[0]}
    assert [x for x in sorted(names) if not (ROOT / x).exists()] == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A kernel of one line and one of none, and what the tests would say to it."""
    path = tmp_path / "tree" / "csrc" / "cpu" / "a.cpp"
    path.parent.mkdir(parents=True)
    (path.parent / "b.h").write_text("#include <b>\nint a;\n")
    (tmp_path / "tree" / "fastcl").mkdir()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "whole.so").touch()
    path.write_text("#include <b>\nint a = b < 0 ? c - d : 2;  // a < b\n")

    def program(tree, whole, file):
        """Of `<= 0` this compiler makes what it makes of `< 0`, of a 3 nothing."""
        text = path.read_text()
        assert whole == tmp_path / "cpu" and file == "csrc/cpu/a.cpp"
        return None if ": 3" in text else "<= 0" not in text

    monkeypatch.setattr(mutation, "WORK", tmp_path)
    monkeypatch.setattr(mutation, "trees", lambda part, workers: [tmp_path / "tree"])
    monkeypatch.setattr(mutation_cpu, "program", program)
    monkeypatch.setattr(mutation, "survives", lambda *_: "a = b < 0 ? c -" not in path.read_text())
    monkeypatch.setattr(mutation, "who_saw", lambda tree: "test_a")
    return path


def test_a_line_has_its_mutants_and_is_put_back(tree, tmp_path):
    before = tree.read_text()
    found = list(mutation.sample("cpu", 60))
    assert sorted(x["new"].partition(" -> ")[2].split("  //")[0] for x in found) == [
        "int a = b < 0 ? c + d : 2;", "int a = b < 0 ? c - d : 3;", "int a = b < 1 ? c - d : 2;",
        "int a = b <= 0 ? c - d : 2;",
    ]  # fmt: skip
    assert [x["new"].count("c + d") for x in found if x.get("survived")] == [1, 0]
    assert tree.read_text() == before
    assert all(
        x.get("equivalent") == (None if ": 3" in x["new"] else "<= 0" in x["new"]) for x in found
    )
    assert len((tmp_path / "cpu.jsonl").read_text().splitlines()) == len(found)
    assert list(mutation.sample("cpu", 60)) == []  # goes on where it ended
    assert json.loads((tmp_path / "cpu.jsonl").read_text().splitlines()[0]) == found[0]


def test_a_sample_begins_with_every_file():
    mutants = [{"module_path": x, "begin": i} for x in "abc" for i in range(20)]
    drawn = mutation.in_order(mutants)
    assert sorted(x["module_path"] for x in drawn[:3]) == ["a", "b", "c"]
    assert sorted(drawn, key=mutants.index) == mutants and drawn == mutation.in_order(mutants)


def test_what_is_compiled_again_includes_the_file_and_is_of_one_set(monkeypatch):
    includes = "\n    /w/csrc/cpu/simd/a.cpp\n    /w/csrc/cpu/row.h\n"
    monkeypatch.setattr(mutation_cpu, "_objects", lambda whole: {
        "fastcl_base.dir/a.o": ("", includes), "fastcl_avx512.dir/a.o": ("", includes),
        "fastcl_ops.dir/b.o": ("", "\n    /w/csrc/cpu/row.h\n"), "fastcl_ops.dir/c.o": ("", ""),
    })  # fmt: skip
    of = mutation_cpu._affected
    assert of(ROOT, "csrc/cpu/row.h", "avx512") == ["fastcl_avx512.dir/a.o", "fastcl_ops.dir/b.o"]
    assert of(ROOT, "csrc/cpu/simd/a.cpp", "base") == ["fastcl_base.dir/a.o"]


@pytest.mark.slow
def test_a_survivor_is_told_from_what_fails(tmp_path):
    """In a process of its own, of the package in the copy."""
    for name, said in (("good", "True"), ("bad", "False"), ("none", None)):
        path = tmp_path / "tests" / f"test_{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if said is None else f"def test_it():\n    assert {said}\n")
    (tmp_path / "fastcl").mkdir()
    (tmp_path / "fastcl" / "__init__.py").touch()
    good, bad, none = (f"tests/test_{name}.py" for name in ("good", "bad", "none"))
    assert mutation.survives(tmp_path, [good])
    assert not mutation.survives(tmp_path, [good, bad])
    with pytest.raises(RuntimeError, match="fails without a mutant: tests/test_bad.py::test_it"):
        mutation.who_saw(tmp_path)
    assert not mutation.survives(tmp_path, [bad])
    (tmp_path / bad).write_text((tmp_path / good).read_text())
    assert mutation.who_saw(tmp_path) == "tests/test_bad.py::test_it"
    with pytest.raises(RuntimeError, match="no tests ran"):
        mutation.survives(tmp_path, [none])
