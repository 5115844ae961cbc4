"""The complete examples of every documentation page run as they stand."""

import re
from pathlib import Path

import pytest

from fastcl import pretext

DOCS = Path(__file__).resolve().parents[1] / "docs"
FENCE = r"^```python\n(.*?)^```$"
BLOCKS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, code in enumerate(re.findall(FENCE, page.read_text(), re.M | re.S))
    if "import torch\n" in code  # the others are lines of a larger script
]  # fmt: skip


def test_there_are_examples():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("code", BLOCKS)
def test_example_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    if "task" in names:  # of a pretext task: it has trained something, in few lines
        assert names["loss"].isfinite() and names["loss"].dim() == 0
        assert all(p.grad is not None for p in names["task"].parameters())
        assert len(code.strip().splitlines()) <= 12


def test_every_pretext_task_has_an_example():
    text = "\n".join(re.findall(FENCE, (DOCS / "pretext.md").read_text(), re.M | re.S))
    classes = [name for name in pretext.__all__ if name[0].isupper()]
    assert [name for name in classes if f"pretext.{name}(" not in text] == []
