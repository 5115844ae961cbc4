"""The examples of docs/migration.md run."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "migration.md").read_text()
EXAMPLES = [x for x in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "patch(" not in x]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example):
    exec(compile(example, "docs/migration.md", "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) == 3
