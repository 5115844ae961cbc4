"""Commands that the pages name are there: of fastcl with their options, of make, of benchmarks."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.main import get_command  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = {path.name: path for path in [*FILES, *sorted((ROOT / "docs").rglob("*.md"))]}


def commands_of(text, program):
    """What stands after a program's name, in a line of its own or in backticks."""
    alone = re.findall(rf"^    {program} (.*)", text, re.M)
    inline = re.findall(rf"(?<!`)`{program}\s([^`]*)`", text)
    return [" ".join(line.split(" # ")[0].split()) for line in alone + inline]


def wrong(text):
    """Commands, options, targets and modules that are not there."""
    known = get_command(commands.app).commands
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M)
    found = []
    for line in commands_of(text, "fastcl"):
        name, *words = shlex.split(line)
        if name.startswith("-"):
            continue
        if name not in known:
            found.append(line)
            continue
        options = {o for p in known[name].params for o in (*p.opts, *p.secondary_opts)}
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        found += [f"{name} {option}" for option in used - options - {"--help"}]
    found += [x for x in commands_of(text, "make") if x.split()[0] not in targets]
    modules = [x.split()[0] for x in commands_of(text, "python -m") if x.startswith("benchmarks")]
    return found + [x for x in modules if importlib.util.find_spec(x) is None]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page):
    assert wrong(PAGES[page].read_text()) == []


def test_what_is_not_there_is_found():
    text = "    fastcl pretrain --epoch 3\n`make\nnothing` and `python -m benchmarks.nowhere --x`\n"
    assert wrong(text) == ["pretrain --epoch", "nothing", "benchmarks.nowhere"]
    assert any(commands_of(path.read_text(), "fastcl") for path in PAGES.values())
