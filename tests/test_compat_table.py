"""The table of docs/migration.md says of every public loss what becomes of it."""

import inspect

import pytest
from peers import peer

from benchmarks import compat_table, report
from benchmarks.compat_reasons import AS_IT_IS, CLOSE, NOT

ROWS = report.read(report.RESULTS / "migration.csv")


def public(module) -> set[str]:
    """Classes and functions that are losses by their name."""
    names = getattr(module, "__all__", None) or [x for x in vars(module) if not x.startswith("_")]
    return {
        x for x in names
        if compat_table.is_loss(x)
        and (inspect.isclass(getattr(module, x)) or inspect.isfunction(getattr(module, x)))
    }  # fmt: skip


@pytest.mark.parametrize("part", [p for p, (_, homes) in compat_table.PARTS.items() if homes])
def test_every_public_loss_stands_once(part):
    _, homes = compat_table.PARTS[part]
    there = set().union(*(public(peer(home)) for home in homes))
    stands = [compat_table.patched(part), compat_table.imported_only(part) & there,
              set(AS_IT_IS.get(part, {})), set(NOT.get(part, {}))]  # fmt: skip
    every = [name for names in stands for name in names]
    assert sorted(every) == sorted(there)


def test_every_reason_is_of_a_part_of_the_table():
    assert set(AS_IT_IS) | set(NOT) <= set(compat_table.PARTS)
    assert all(reason for part in [*AS_IT_IS.values(), *NOT.values()] for reason in part.values())


def test_the_committed_table_is_what_the_code_says():
    page = (report.ROOT / "docs" / "migration.md").read_text()
    text = compat_table.text(ROWS)
    assert report.insert(page, "losses", text) == page and text in page


def test_figures_are_of_the_rows():
    row = {"library": "lightly", "name": "A, B", "size": "2 x 3", "median_ms": "8.0",
           "extra_mb": "10.0"}  # fmt: skip
    ours = {**row, "median_ms": "2.0", "extra_mb": "0.5"}
    found = compat_table.figures("lightly", "B", [row, ours])
    assert found == "4.0x at 2 x 3; 10 MB, now 0.5 MB"
    assert compat_table.figures("lightly", "C", [row, ours]) == "its figures are to be measured"


def test_what_gains_little_has_its_reason():
    row = {"library": "info_nce", "name": "InfoNCE, info_nce", "size": "2 x 3", "median_ms": "8.0",
           "extra_mb": "10.0"}  # fmt: skip
    reason = CLOSE["info_nce"]["InfoNCE"]
    for time, memory, close in (("6.5", "4", True), ("6", "4", False), ("9", "1", False)):
        ours = {**row, "median_ms": time, "extra_mb": memory}
        found = compat_table.figures("info_nce", "InfoNCE", [row, ours])
        assert found.endswith(f": {reason}") == close
    with pytest.raises(KeyError):
        compat_table.figures(
            "lightly", "A", [{**row, "library": "lightly", "name": "A"}, {**row, "extra_mb": "9"}]
        )
