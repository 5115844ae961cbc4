"""Every example of docs/pretext.md runs and trains something."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pretext.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_task_has_an_example():
    from fastcl import pretext

    text = "\n".join(EXAMPLES)
    classes = [name for name in pretext.__all__ if name[0].isupper()]
    assert [name for name in classes if f"pretext.{name}(" not in text] == []


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code):
    names: dict = {}
    exec(code, names)
    assert names["loss"].isfinite() and names["loss"].dim() == 0
    assert all(p.grad is not None for p in names["task"].parameters())
    assert len(code.strip().splitlines()) <= 12
