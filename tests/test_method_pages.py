"""Every example of the documentation runs."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = [
    pytest.param(code, id=f"{path.stem}-{i}")
    for path in sorted(DOCS.glob("methods-*.md"))
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


def test_every_page_has_an_example():
    assert len(EXAMPLES) >= len(list(DOCS.glob("methods-*.md"))) >= 5


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code):
    torch.manual_seed(0)
    names: dict = {}
    exec(code, names)
    assert names["loss"].isfinite() and names["loss"].dim() == 0
    assert any(p.grad is not None for p in names["method"].parameters())
    assert len(code.strip().splitlines()) < 15
