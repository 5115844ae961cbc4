"""The complete examples of every documentation page run as they stand."""

import re
from pathlib import Path

import pytest

from fastcl import pretext

DOCS = Path(__file__).resolve().parents[1] / "docs"
FENCE = r"^```python\n(.*?)^```$"
EXAMPLES = {
    f"{page.stem}-{number}": code
    for page in sorted(DOCS.glob("*.md"))
    for number, code in enumerate(re.findall(FENCE, page.read_text(), re.M | re.S))
    if "import torch\n" in code  # the others are lines of a larger script
}


def of_page(stem):
    return {name: code for name, code in EXAMPLES.items() if name.startswith(f"{stem}-")}


def test_there_are_examples():
    assert len(EXAMPLES) >= 20
    pages = "migration", "pretext", "distributed", "evaluation", "cuda-graphs", "positives"
    assert all(of_page(stem) for stem in pages)


def test_every_pretext_task_has_an_example():
    text = "\n".join(of_page("pretext").values())
    classes = [name for name in pretext.__all__ if name[0].isupper()]
    assert [name for name in classes if f"pretext.{name}(" not in text] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    exec(compile(EXAMPLES[name], name, "exec"), names)
    if name in of_page("pretext"):
        assert names["loss"].isfinite() and names["loss"].dim() == 0
        assert all(p.grad is not None for p in names["task"].parameters())
        assert len(EXAMPLES[name].strip().splitlines()) <= 12
