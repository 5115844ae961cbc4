"""What the GPU run relies on where no GPU is: turns, rows as they come, the line of a case."""

import sys
import time
from pathlib import Path

from benchmarks import report, turns
from benchmarks.verdict import verdict

ROOT = Path(__file__).parents[1]
GOOD = """
from benchmarks import turns
turns.wait_for_turn()
turns.hand_on({"x": NAME})
turns.finish()
"""
HANGS = "from benchmarks import turns; import time; turns.wait_for_turn(); time.sleep(60)"
FAILS = "raise SystemExit('no device')"
BREAKS = "from benchmarks import turns; turns.wait_for_turn(); raise SystemExit('no device')"


def test_a_program_that_hangs_or_fails_takes_only_itself_away(monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    good = [GOOD.replace("NAME", str(i)) for i in (1, 2)]
    programs = {"a": good[0], "hangs": HANGS, "fails": FAILS, "breaks": BREAKS, "b": good[1]}
    commands = {name: [sys.executable, "-c", program] for name, program in programs.items()}
    rows, begin = [], time.monotonic()
    failed = turns.in_turn(commands, rows.append, within=50, patience=40, turn=2)
    assert rows == [{"x": 1}, {"x": 2}]
    assert failed == ["hangs", "fails", "breaks"] and time.monotonic() - begin < 50
    assert "fails: no device" in capfd.readouterr().out


def test_time_that_is_over_ends_all_of_them(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    begin = time.monotonic()
    assert turns.in_turn({"slow": slow}, list, within=1, patience=1, turn=1) == ["slow"]
    assert time.monotonic() - begin < 30


def test_appended_rows_are_a_table(tmp_path):
    for value in (1.0, 2.5):
        report.append({"a": "x", "b": value}, tmp_path / "folder" / "rows.csv")
    found = report.read(tmp_path / "folder" / "rows.csv")
    assert found == [{"a": "x", "b": "1"}, {"a": "x", "b": "2.5"}]


def row(variant, median, note=""):
    return {
        "variant": variant, "median_ms": median, "note": note, "work": "1e9", "ceiling": "1e12",
    }  # fmt: skip


def test_the_line_of_a_case():
    case = "NT-Xent 8,192 x 128"
    rows = {x["variant"]: x for x in (row("fastcl", "0.2"), row("fastcl, CUDA graph", "0.1"))}
    line = verdict(case, rows | {"plain": row("plain", "0.4")}, {case: 0.11})
    assert "0.1 ms" in line and "eager 0.2" in line and "predicted 0.11" in line
    assert "limit 1 (1000%)" in line and "plain 0.4 (4.00x)" in line and "wanted 0.12: met" in line
    wrong = {"fastcl": row("fastcl", "0.5", "WRONG by 1e-01"), "plain": row("plain", "0.4")}
    assert "WRONG" in (line := verdict(case, wrong, {})) and "SLOWER than a rival" in line
    assert "not measured; fails" in verdict(case, {"fastcl": row("fastcl", "", "fails")}, {})
