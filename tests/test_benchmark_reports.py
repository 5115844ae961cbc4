"""Tables, plots and verdicts out of small made-up rows."""

import math
import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import guard, plots, report, tables
from benchmarks.guard import Wanted
from benchmarks.suites import SUITES
from fastcl._processor import Processor

WHERE = {
    "date": "2026-01-01", "commit": "abc", "machine": "a processor", "bf16": "no", "cores": 2,
    "threads": 2, "load": 0.1, "python": "3.11", "torch": "2.13", "fastcl": "0.1",
}  # fmt: skip


def row(variant: str, time: float, **changes) -> dict:
    """As `measure` returns it and `save` writes it; no time means a note."""
    base = {
        "case": "CLIP 64 x 8", "loss": "clip", "n": 64, "m": 64, "d": 8, "dtype": "float32",
        "variant": variant, "version": "1.0", "measure": "FLOP", "work": 2.6e5, "error": 1e-6,
        "note": "" if time else "needs a GPU",
    }  # fmt: skip
    if time:
        base |= {
            "median_ms": time, "q20_ms": time, "q80_ms": time, "samples": 5, "extra_mb": time / 2,
            "rate": 2.6e5 / time * 1e3, "ceiling": 1e9, "fraction": 0.26 / time,
        }  # fmt: skip
    return WHERE | base | changes


ROWS = [
    row("fastcl", 2.0), row("plain", 5.0), row("chunked", 8.0), row("fastcl bf16", 1.0),
    row("quick", 3.0), row("slow", 200.0), row("Inf-CL", 0),
    row("fastcl", 1.0, case="momentum X fp32", measure="B", rate=5.1e10, extra_mb=0.0),
    row("plain", 0, case="momentum X fp32", note="would need 86 GB"),
]  # fmt: skip


@pytest.fixture
def rows(tmp_path):
    report.save(ROWS, tmp_path / "cpu.csv")
    return report.read(tmp_path / "cpu.csv")


def test_headline_puts_the_libraries_into_one_column(rows):
    lines = tables.headline(rows).splitlines()
    assert lines[0] == (
        "| case | fastcl | rate | of the ceiling | plain | chunked | fastest other library "
        "| memory: fastcl | plain |"
    )
    assert lines[2] == (
        "| CLIP 64 x 8 | 2 ms | 130 MFLOP/s | 13% | 2.5x | 4.0x | 1.5x quick | 1.0 MB | 2.5 MB |"
    )
    assert lines[3].startswith("| momentum X fp32 | 1 ms | 51 GB/s | 26% | - | - | - | 0.0 MB |")
    text = "\n".join(lines)
    assert "CLIP 64 x 8 takes 1 ms, 2.0x as fast as on float32 rows; this processor has no" in text
    assert "Not timed: plain on momentum X fp32: would need 86 GB." in text
    assert "busy" not in text


def test_predictions_stand_beside_measurements(rows):
    lines = tables.headline(rows, {"CLIP 64 x 8": 1.5, "another": 9.0}).splitlines()
    assert lines[0].startswith("| case | fastcl | predicted | rate |")
    assert lines[2].startswith("| CLIP 64 x 8 | 2 ms | 1.5 ms | 130 MFLOP/s |")
    assert lines[3].startswith("| momentum X fp32 | 1 ms | - | 51 GB/s |")
    assert tables.headline(rows, {"another": 9.0}) == tables.headline(rows)


def test_a_busy_machine_is_named():
    busy = [{k: str(v) for k, v in r.items()} for r in [row("fastcl", 1.0, load=3.0)]]
    assert "The machine was busy: load 3.0 on 2 cores." in tables.headline(busy)


def test_every_library_has_its_line(rows):
    text = tables.libraries(rows)
    assert "| quick 1.0 | CLIP 64 x 8 | 1.5x | 1.5 MB (1.0 MB) | 1e-06 (1e-06) |  |" in text
    assert "| Inf-CL 1.0 | CLIP 64 x 8 | - | - | - | needs a GPU |" in text
    assert "plain" not in text
    assert tables.libraries([r for r in rows if not tables.is_library(r["variant"])]) == ""


def curve(variant: str, power: float, largest: int) -> list[dict]:
    return [
        row(variant, 1e-4 * n**power, case=f"NT-Xent {n:,} x 128", loss="nt_xent", n=n)
        for n in (64 * 2**k for k in range(largest))
    ]  # fmt: skip


@pytest.fixture
def scaled(tmp_path):
    """Interleaved by case, as measured: plain PyTorch ends two sizes earlier."""
    ours, plain = curve("fastcl", 2.0, 8), curve("plain", 2.2, 6)
    plain += [row("plain", 0, case=r["case"], loss="nt_xent", note="needs 9 GB") for r in ours[6:]]
    report.save([r for pair in zip(ours, plain, strict=True) for r in pair], tmp_path / "s.csv")
    return report.read(tmp_path / "s.csv")


def test_scaling_fits_the_power_on_the_larger_half(scaled):
    text = tables.scaling(scaled)
    assert "Time of NT-Xent over its larger sizes: fastcl n^2.00, plain n^2.20." in text
    assert "Not timed: plain on NT-Xent 4,096 x 128, NT-Xent 8,192 x 128: needs 9 GB." in text
    assert text.splitlines()[-4].count("|") == 0 and "| NT-Xent 8,192 x 128 |" in text


def test_the_power_ignores_the_smaller_half():
    points = [(n, 1.0) for n in (1, 2, 4)] + [(n, 7 * n**1.5) for n in (8, 16, 32)]
    assert math.isclose(tables.exponent(points), 1.5)


def test_plots_are_written(rows, scaled, tmp_path):
    pytest.importorskip("matplotlib")
    plots.scaling(scaled, tmp_path / "scaling.png")
    plots.distances(rows, tmp_path / "cpu.png")
    for name in ("scaling.png", "cpu.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_an_interrupted_run_keeps_its_cases(tmp_path):
    report.save(ROWS[:1], tmp_path / "new" / "x.csv")
    report.save(ROWS[:2], tmp_path / "new" / "x.csv")
    assert [r["variant"] for r in report.read(tmp_path / "new" / "x.csv")] == ["fastcl", "plain"]


def test_rows_of_another_machine_and_of_other_cases_stay(tmp_path):
    """A case takes the place of its rows on the same machine; a table shows one machine."""
    here = [{**row, "machine": "here"} for row in ROWS]
    there = [{**row, "machine": "there"} for row in ROWS]
    again = [{**row, "date": "later"} for row in here if row["case"] == ROWS[0]["case"]]
    rows = report.renew(again, here + there)
    assert len(rows) == len(here + there) and rows[: len(again)] == again
    assert report.renew(there, here) == here + there
    report.save(rows, tmp_path / "cpu.csv")
    first, second = report.texts("cpu", tmp_path)["cpu"].split("\n\n| case")
    assert "here, " in first and "there, " in second and "there, " not in first


WANTED = (
    Wanted("CLIP 64 x 8", "plain", 2.4, "why"),
    Wanted("CLIP 64 x 8", "quick", 1.6, "why"),
    Wanted("CLIP 64 x 8", "bf16", 1.9, "why"),
    Wanted("CLIP 64 x 8", "absent", 1.0, "why"),
)


def test_guard_holds_wanted_ratios_and_memory(rows):
    found = {(v.case, v.what): v.passed for v in guard.verdicts(rows, [], WANTED)}
    assert found == {
        ("CLIP 64 x 8", "plain"): True,
        ("CLIP 64 x 8", "quick"): False,
        ("CLIP 64 x 8", "bf16"): None,  # the processor has no such products
        ("CLIP 64 x 8", "absent"): None,
        ("CLIP 64 x 8", "memory"): True,
        ("momentum X fp32", "memory"): True,
    }
    able = [r | {"bf16": "yes"} for r in rows]
    assert {v.what: v.passed for v in guard.verdicts(able, [], WANTED)}["bf16"] is True
    fat = [r | {"extra_mb": "17"} for r in rows]
    assert {v.what: v.passed for v in guard.verdicts(fat, [], ())}["memory"] is False


def test_guard_wants_of_bfloat16_what_the_processor_has(monkeypatch):
    for products, ratios in (("AMX", [2.5]), ("AVX-512 BF16", [1.5]), ("widened", [])):
        here = Processor("AVX-512", 16, products)
        monkeypatch.setattr(guard, "processor", lambda here=here: here)
        assert [w.ratio for w in guard.WANTED if w.here and w.rival == "bf16"] == ratios


def test_guard_holds_the_committed_rows_of_the_same_machine(rows):
    before = [r | {"median_ms": "10"} if r["variant"] == "plain" else r for r in rows]
    before = [r for r in before if r["median_ms"]]
    found = guard.verdicts(rows, before, ())
    assert [v.passed for v in found if v.what == "plain"] == [False]  # 2.5x, was 5.0x
    assert "FALLS SHORT" in guard.table(found)
    elsewhere = [r | {"machine": "another"} for r in before]
    assert [v for v in guard.verdicts(rows, elsewhere, ()) if v.what == "plain"] == []


def test_guard_asks_for_cases_of_the_suite():
    names = {case.name for case in guard.SUITES["cpu"]}
    assert {w.case for w in guard.WANTED} <= names


@pytest.mark.slow
def test_the_command_writes_rows_table_and_plot(tmp_path, monkeypatch, capsys):
    from benchmarks.cases import Case

    tiny = (Case("clip", 32, 32, 16, 4), Case("moco", 8, 64, 16, 2))
    monkeypatch.setattr(command, "SUITES", {"cpu": tiny})
    monkeypatch.setattr(
        sys, "argv",
        ["benchmarks", "--out", str(tmp_path), "--budget", "0.001", "--no-memory", "--cases", "CL"],
    )  # fmt: skip
    readme = (report.ROOT / "README.md").read_text()
    command.main()
    assert {r["case"] for r in report.read(tmp_path / "cpu.csv")} == {"CLIP 32 x 16"}
    assert "| CLIP 32 x 16 |" in (tmp_path / "cpu.md").read_text()
    assert (report.ROOT / "README.md").read_text() == readme
    monkeypatch.setattr(
        sys, "argv", ["benchmarks", "--out", str(tmp_path), "--within", "0", "--no-memory"]
    )
    with pytest.raises(SystemExit, match="no case"):
        command.main()
    assert "would not end within" in capsys.readouterr().out


def test_guard_measures_what_it_asks_for(monkeypatch):
    from benchmarks.cases import Case

    case = Case("clip", 32, 32, 16, 4, bfloat16=True)
    wanted = tuple(Wanted(case.name, rival, 1e-6, "why") for rival in ("plain", "bf16"))
    monkeypatch.setattr(guard, "SUITES", {"cpu": (Case("clip", 8, 8, 8, 4), case)})
    monkeypatch.setattr(guard, "WANTED", wanted)
    monkeypatch.setattr(guard, "peak_elsewhere", lambda *_: lambda case, variant: 1.0)
    rows = guard.run(budget=1e-3)
    assert [r["variant"] for r in rows] == ["fastcl", "plain", "fastcl bf16"]
    found = guard.verdicts([r | {"bf16": "yes"} for r in rows], [], wanted)
    assert {v.what: v.passed for v in found} == {"plain": True, "bf16": True, "memory": True}
    monkeypatch.setattr(sys, "argv", ["guard", "--budget", "0.001"])
    assert guard.main() == 0
    monkeypatch.setattr(guard, "WANTED", (wanted[0]._replace(ratio=1e6),))
    assert guard.main() == 1


@pytest.mark.slow
def test_memory_comes_from_a_process_of_its_own():
    from benchmarks.measure import peak_elsewhere

    assert 0 <= peak_elsewhere("quick", 0, "cpu")(None, "fastcl") < 100
    assert peak_elsewhere("quick", 0, "cpu")(None, "nobody") == ""


def test_circumstances_name_the_machine():
    where = report.circumstances("cpu")
    assert where["threads"] == torch.get_num_threads() and where["load"] >= 0
    assert where["bf16"] in ("yes", "no") and where["commit"]


COMMITTED = sorted(
    p.stem for p in report.RESULTS.glob("*.md") if p.stem.removesuffix("_peers") in SUITES
)


@pytest.mark.parametrize("suite", COMMITTED)
def test_table_comes_from_the_rows(suite):
    made = report.texts(suite.removesuffix("_peers"))
    assert made[suite] == (report.RESULTS / f"{suite}.md").read_text()


@pytest.mark.parametrize("git", [True, False], ids=["no repository", "no git"])
def test_the_commit_comes_in_where_git_does_not_know_it(git, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTCL_COMMIT", "abc1234")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    if not git:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert report.circumstances("cpu")["commit"] == "abc1234"
    monkeypatch.delenv("FASTCL_COMMIT")
    assert report.circumstances("cpu")["commit"] == "unknown"
