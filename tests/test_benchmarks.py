"""Every benchmark case runs once, tiny, or it would rot; the README shows the committed tables."""

from dataclasses import replace

import pytest
import torch

from benchmarks import report
from benchmarks.__main__ import error
from benchmarks.cases import PLAIN, SUITES, fused
from benchmarks.timing import interleaved

CASES = {f"{suite} {case.name}": case for suite, cases in SUITES.items() for case in cases}


@pytest.mark.parametrize("name", CASES)
def test_case_is_right(name):
    case = CASES[name].smaller(48)
    limit = 1e-4 if case.dtype == torch.float32 else 3e-2
    assert error(case, fused(case.loss), "cpu") < limit
    # In bfloat16 plain PyTorch is further off than this, so its line is checked in float32.
    in_float32 = replace(case, dtype=torch.float32)
    assert error(in_float32, PLAIN[case.loss], "cpu") < 1e-4


def test_a_wrong_function_is_noticed():
    case = CASES["cpu CLIP 4,096 x 512"].smaller(48)
    assert error(case, lambda image, text: 1.01 * fused("clip")(image, text), "cpu") > 1e-3


def test_interleaving_times_every_variant():
    calls = {"one": [], "two": []}
    times = interleaved({k: lambda v=v: v.append(0) for k, v in calls.items()}, "cpu", 0.01)
    assert all(low <= median <= high for median, low, high in times.values())
    assert len(calls["one"]) > 5


@pytest.mark.parametrize("suite", ["cpu", "digits"])
def test_readme_shows_the_results(suite):
    text = (report.ROOT / "README.md").read_text()
    shown = (report.RESULTS / f"{suite}.md").read_text()
    assert shown in text
    assert report.insert(text, suite, shown) == text


def test_table_comes_from_the_rows():
    shown = (report.RESULTS / "cpu.md").read_text()
    assert report.table(report.RESULTS / "cpu.csv") == shown
