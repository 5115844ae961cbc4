"""Equal bits under changing numbers of threads: a few repeats of what `make race` does a thousand
times, of every operator, and its rows."""

import csv
import subprocess
from pathlib import Path

import pytest
import race
import torch
from processors import built

pytestmark = built

DEFINED = {x.removeprefix("fastcl::") for x in torch._C._dispatch_get_all_op_names()
           if x.startswith("fastcl::")}  # fmt: skip
# No CPU kernel; which kernels run; how memory is laid out.
OPERATORS = DEFINED - {"contrast_sums_", "processor", "use_processor", "large_pages_"}


@pytest.mark.parametrize("dtype", race.DTYPES, ids=str)
def test_every_call_gives_the_same_bits(dtype):
    for name, call in race.calls(dtype):
        assert race.differing(call, 2 * len(race.THREADS)) == 0, name


def test_every_operator_is_called():
    names = {name for dtype in race.DTYPES for name, _ in race.calls(dtype)}
    assert names == OPERATORS


def test_what_differs_is_counted(monkeypatch, tmp_path):
    """A call whose last bit follows the number of threads, where there are two."""

    def call():
        return torch.ones(3) * (1 + 1e-7 * (torch.get_num_threads() == 2)), torch.tensor(torch.nan)

    assert race.differing(call, 10) == 2
    monkeypatch.setattr(race, "calls", lambda dtype: [("operator", call)])
    out = tmp_path / "race.csv"
    assert race.main(10, out) == 1
    rows = list(csv.DictReader(out.open()))
    assert [row["differ"] for row in rows] == ["2"] * len(race.DTYPES)


def test_the_rows_of_the_release_are_of_every_operator_and_none_differs():
    rows = list(csv.DictReader(race.RESULTS.open()))
    assert {row["operator"] for row in rows} == OPERATORS
    assert {(row["repeats"], row["differ"]) for row in rows} == {("1000", "0")}


def test_the_driver_of_the_sanitizers_is_that_of_the_kernels():
    """It is compiled by `make sanitize` alone."""
    root = Path(__file__).parents[1]
    sources = sorted((root / "tests" / "threads").glob("*.cpp"))
    flags = ["-std=c++20", "-fsyntax-only", "-I", root / "csrc"]
    done = subprocess.run(["c++", *flags, *sources], capture_output=True, text=True)
    assert sources and done.returncode == 0, done.stderr[-3000:]
