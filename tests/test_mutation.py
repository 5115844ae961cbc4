"""The mutation score: its rows, what is said of them, and the tool."""

import csv
import json
import re
from pathlib import Path

import mutation
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
    files = {mutation.EVERY, mutation.CONTRAST, mutation.KERNEL, *mutation.CPU.values()}
    files |= {names for names, _ in mutation.FUNCTIONAL.values()}
    names = {name for line in files for name in line.split()}
    assert [x for x in sorted(names) if not (ROOT / "tests" / f"test_{x}.py").exists()] == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A kernel of one line, and what the tests would say to it."""
    path = tmp_path / "csrc" / "cpu" / "a.cpp"
    path.parent.mkdir(parents=True)
    (tmp_path / "fastcl").mkdir()
    (tmp_path / "whole.so").touch()
    path.write_text("#include <b>\nint a = b < 0 ? c - d : 2;  // a < b\n")

    def build():
        """Of `<= 0` this compiler makes what it makes of `< 0`, of a 3 nothing."""
        text = path.read_text()
        (tmp_path / "fastcl" / "fastcl_ops.so").write_text("" if "<= 0" in text else text)
        return ": 3" not in text

    monkeypatch.setattr(mutation, "TREE", tmp_path)
    monkeypatch.setattr(mutation, "WORK", tmp_path)
    monkeypatch.setattr(mutation, "build", build)
    monkeypatch.setattr(mutation, "check_sound", lambda files: None)
    monkeypatch.setattr(mutation, "survives", lambda files: "c + d" in path.read_text())
    return path


def test_a_line_has_its_mutants_and_is_put_back(tree, tmp_path):
    before = tree.read_text()
    found = list(mutation.sample("cpu", 60))
    assert sorted(x["new"].partition(" -> ")[2].split("  //")[0] for x in found) == [
        "int a = b < 0 ? c + d : 2;", "int a = b < 0 ? c - d : 3;", "int a = b < 1 ? c - d : 2;",
        "int a = b <= 0 ? c - d : 2;",
    ]  # fmt: skip
    assert [x["survived"] for x in found if "c + d" in x["new"]] == [True]
    assert sum(x.get("survived", False) for x in found) == 1 and tree.read_text() == before
    assert all(
        x.get("equivalent") == (None if ": 3" in x["new"] else "<= 0" in x["new"]) for x in found
    )
    assert len((tmp_path / "cpu.jsonl").read_text().splitlines()) == len(found)
    assert list(mutation.sample("cpu", 60)) == []  # goes on where it ended
    assert json.loads((tmp_path / "cpu.jsonl").read_text().splitlines()[0]) == found[0]
