"""Every case of benchmarks.migration runs tiny, original beside replacement; its table."""

import pytest
from peers import peer

from benchmarks import migration, report
from benchmarks.migration_cases import CASES
from fastcl.compat._libraries import LIBRARIES

IDS = [f"{case.library} {case.name} {case.rows}" for case in CASES]
REFUSED = next(case for case in CASES if case.cannot)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_original_and_replacement_agree(case):
    if case.home:
        peer(case.home)
    assert migration.difference(case, 16) <= 2e-5


def test_every_replaced_name_has_a_case():
    named = {(case.library, x) for case in CASES for x in case.name.split(", ")}
    helper = "negative_mises_fisher_weights"  # the weights of DCLWLoss
    for library, known in LIBRARIES.items():
        replaced = {path.split(".")[-1] for path in known.names} - {helper}
        assert {(library, name) for name in replaced} <= named


def test_rows_of_a_case(monkeypatch):
    case = next(case for case in CASES if not case.home)
    rows = migration.measure(case, budget=1e-3, rows=16)
    assert [r["variant"] for r in rows] == ["original", "fastcl"]
    assert all(r["median_ms"] > 0 and r["difference"] < 1e-5 for r in rows)
    monkeypatch.setattr(migration, "LIMIT", 0.0)  # negative control
    with pytest.raises(SystemExit, match="SupConLoss differs by"):
        migration.measure(case, budget=1e-3, rows=16)


def test_what_the_original_cannot_hold_is_said_in_its_own_words():
    peer(REFUSED.home)
    # 63,488 positive pairs by 4,128,768 negative ones.
    assert "262,127" in migration.refusal(REFUSED, 2048).replace("262127", "262,127")
    with pytest.raises(SystemExit, match="at 16 rows does run"):
        migration.refusal(REFUSED, 16)


def test_table(tmp_path):
    row = {
        "date": "today", "commit": "abc", "machine": "a machine", "threads": 2, "torch": "2.13",
        "library": "lightly", "version": "1.6.0", "name": "NTXentLoss", "rows": 16,
        "size": "16 x 8", "variant": "original", "median_ms": 30.0, "extra_mb": 120.0, "note": "",
    }  # fmt: skip
    ours = {**row, "version": "0.1", "variant": "fastcl", "median_ms": 10.0, "extra_mb": 1.5}
    refused = {**row, "name": "Large", "median_ms": "", "extra_mb": "", "note": "too much: no"}
    rows = [row, ours, refused, {**ours, "name": "Large"}]
    report.save(rows, tmp_path / "migration.csv", migration.COLUMNS)
    text = migration.table(report.read(tmp_path / "migration.csv"))
    one = "| lightly 1.6.0 | `NTXentLoss` | 16 x 8 | 30 ms | 10 ms | 3.0x | 120 MB | 1.5 MB |"
    assert one in text and "| does not run | 10 ms | - | - | 1.5 MB |" in text
    assert "`Large` of lightly on 16 x 8 holds too much: no." in text


def test_some_cases_again_leave_the_rows_of_the_others():
    first, second, third = CASES[:3]
    rows = [
        {"library": c.library, "name": c.name, "rows": c.rows, "variant": v, "date": "old"}
        for c in (first, third) for v in migration.SIDES
    ]  # fmt: skip
    new = [{**rows[0], "name": second.name, "rows": str(second.rows), "date": "new"},
           {**rows[3], "rows": str(third.rows), "date": "new"}]  # fmt: skip
    found = [(r["name"], r["date"]) for r in migration.renewed(new, rows)]
    assert found == [(first.name, "old")] * 2 + [(second.name, "new"), (third.name, "new")]


def test_page_has_a_place_for_the_table():
    page = (report.ROOT / "docs" / "migration.md").read_text()
    assert "new\n<!-- migration: end -->" in report.insert(page, "migration", "new\n")
