"""The complete examples of docs/ run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = [
    pytest.param(code, id=f"{path.stem}-{i}")
    for path in sorted(DOCS.glob("*.md"))
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.S))
    if "import torch\n" in code  # the others are fragments of a training script
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code):
    exec(compile(code, "docs", "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) >= 2
