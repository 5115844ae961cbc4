"""The benchmark of instruction sets: a row for every path that runs here, and the table of them."""

import pytest
from processors import built

from benchmarks import processor as benchmark
from benchmarks import report
from fastcl._processor import processor

COMMITTED = report.RESULTS / "processor.csv"


@built
def test_every_path_has_a_row_and_the_best_runs_afterwards(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "ROWS", 64)
    before = processor()
    rows = [{"machine": "here", "threads": 1, "commit": "x", "date": "today"} | row
            for row in benchmark.measure(16, 1e-3)]  # fmt: skip
    assert processor() == before
    paths = [row["path"] for row in rows]
    assert before.instruction_set in paths and "base" in paths and "widened products" in paths
    assert len(set(paths)) == len(rows) and all(row["rate"] > 0 for row in rows)
    report.save(rows, tmp_path / "x.csv", benchmark.COLUMNS)
    text = benchmark.table(report.read(tmp_path / "x.csv"))
    assert all(f"| {path} |" in text for path in paths) and "1 threads: here, x, today." in text


@pytest.mark.skipif(not COMMITTED.exists(), reason="no rows are committed")
def test_table_comes_from_the_rows():
    assert benchmark.table(report.read(COMMITTED)) == COMMITTED.with_suffix(".md").read_text()
