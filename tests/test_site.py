"""What the site is made of and checked by; the site itself is built by `make docs`."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def check():
    return runpy.run_path(str(DOCS / "check_site.py"))


def test_drawings_are_what_the_script_draws():
    made = runpy.run_path(str(DOCS / "drawings" / "draw.py"))["DRAWINGS"]
    there = {path.stem: path.read_text() for path in (DOCS / "drawings").glob("*.svg")}
    assert there == {name: draw() for name, draw in made.items()}
    page = (DOCS / "kernels.md").read_text()
    assert set(re.findall(r"\(drawings/(\w+)\.svg\)", page)) == set(made)


@pytest.mark.parametrize("path", sorted(DOCS.glob("inventories/*.txt")), ids=lambda path: path.stem)
def test_names_of_other_libraries_are_theirs(path):
    lines = path.read_text().splitlines()
    assert lines == sorted(lines)
    for line in lines:
        name, kind, priority, address, shown = line.split(" ")
        assert kind.startswith("py:") and (priority, shown) == ("1", "-") and ".html" in address
        *modules, last = name.split(".")
        found = importlib.import_module(".".join(modules) or "builtins")
        assert hasattr(found, last), name


def test_every_public_module_has_a_page(check):
    shown = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = re.findall(r"automodule:: ([\w.]+)", shown)
    assert set(check["MODULES"]) <= set(named)
    compat = {path.stem for path in (ROOT / "fastcl" / "compat").glob("[a-z]*.py")}
    assert {name.removeprefix("fastcl.compat.") for name in named if "compat" in name} == compat


def test_links_that_lead_nowhere_are_found(check, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.html").write_text(
        '<a href="in/b.html#there">1</a> <a href="#top">2</a> <a href="https://x.org/y">3</a>'
        '<a href="in/b.html#gone">4</a> <a href="c.html">5</a> <img src="d.png">'
    )
    (tmp_path / "in" / "b.html").write_text('<p id="there"><a href="../a.html">back</a></p>')
    wrong, followed = check["broken"](tmp_path)
    assert wrong == ["a.html: in/b.html#gone", "a.html: c.html", "a.html: d.png"]
    assert followed == 6


def test_docstrings_become_what_sphinx_reads(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    monkeypatch.delitem(sys.modules, "docstrings", raising=False)
    process = importlib.import_module("docstrings").process
    lines = [
        "One line.",
        "",
        "Equal to ``a @ b_``; see `functional.clip` and push_.",
        "",
        "    x = 1",
    ]
    process(None, "function", "f", None, None, lines)
    assert lines == [
        "One line.", "", "**Equal to** ``a @ b_``; see `fastcl.functional.clip` and ``push_``.", "",
        "::", "", "    x = 1",
    ]  # fmt: skip
    fields = ["Alias for field number 0"]
    process(None, "attribute", "f", None, None, fields)
    assert fields == []
