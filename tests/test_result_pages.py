"""README, docs/results.md and docs/data.md show what the committed rows say."""

import re

import pytest

from benchmarks import (
    digits,
    finetuning_table,
    report,
    summary,
    throughput_table,
    view_table,
)

MADE = {
    "cpu": lambda: report.texts("cpu")["cpu"],
    "scaling": lambda: report.texts("scaling")["scaling"],
    "digits": lambda: digits.table(report.read(report.RESULTS / "digits.csv")),
    "views": lambda: view_table.table(report.read(report.RESULTS / "views.csv")),
    "views_short": lambda: view_table.short(report.read(report.RESULTS / "views.csv")),
    "throughput": lambda: throughput_table.table(report.read(report.RESULTS / "throughput.csv")),
    "finetuning": lambda: finetuning_table.runs(
        report.read(report.RESULTS / finetuning_table.RUNS_CSV)
    ),
    "finetuning_steps": lambda: finetuning_table.steps(
        report.read(report.RESULTS / finetuning_table.STEPS_CSV)
    ),
    "speed": lambda: summary.speed(report.read(report.RESULTS / "cpu.csv")),
    "replaced": lambda: summary.replaced(report.read(report.RESULTS / "migration.csv")),
}


def shown():
    """Name of the table, and the pages that have its markers."""
    found = {}
    for page in report.PAGES:
        text = (report.ROOT / page).read_text()
        for name in re.findall(r"<!-- (\w+): start -->", text):
            found.setdefault(name, []).append(page)
    return found


def test_every_table_is_shown_once():
    assert {name: len(pages) for name, pages in shown().items()} == dict.fromkeys(MADE, 1)


@pytest.mark.parametrize("name", MADE)
def test_the_page_shows_what_the_rows_say(name):
    made = MADE[name]()
    text = (report.ROOT / shown()[name][0]).read_text()
    assert f"<!-- {name}: start -->\n{made}<!-- {name}: end -->" in text
    assert name not in ("digits", "views") or made == (report.RESULTS / f"{name}.md").read_text()


def test_writing_changes_no_page_that_is_right_and_mends_one_that_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    right = "a\n<!-- speed: start -->\n| 1 |\n<!-- speed: end -->\nb\n"
    texts = right, right.replace("1", "2"), right, right
    for page, text in zip(report.PAGES, texts, strict=True):
        (tmp_path / page).write_text(text)
    report.write_pages("speed", "| 1 |\n")
    report.write_pages("elsewhere", "| 3 |\n")
    assert [(tmp_path / page).read_text() for page in report.PAGES] == 4 * [right]


def test_views_beside_libraries_that_were_not_installed():
    rows = report.read(report.RESULTS / "views.csv")
    some = [row for row in rows if row["variant"] != view_table.KORNIA]
    lines, without = (view_table.short(x).splitlines() for x in (rows, some))
    at = [x.strip() for x in lines[0].split("|")].index("kornia at 32")
    for whole, part in zip(lines[2:-2], without[2:-2], strict=True):
        cells = whole.split("|")
        cells[at] = " - "
        assert "|".join(cells) == part


def test_short_tables_show_the_newest_machine_and_the_least_and_the_most():
    rows = report.read(report.RESULTS / "cpu.csv")
    newest = max(row["date"] for row in rows)
    assert newest in summary.speed(rows)
    assert [line.split(" | ")[0][2:] for line in summary.speed(rows).splitlines()[2:]][
        : len(summary.SHOWN)
    ] == list(summary.SHOWN)
    one = {"library": "lib", "machine": "m", "torch": "2", "date": "d", "name": "A"}
    values = ("30", "8"), ("10", "4"), ("", ""), ("9", "9"), ("50", "0.05"), ("2", "0.01")
    made = [one | {"median_ms": ms, "extra_mb": mb} for ms, mb in values]
    assert "| lib | `A` | 3.0x to 25x | 2.0x |" in summary.replaced(made)
