"""docs/beyond.md shows what the committed rows say, and its benchmark weighs what it says."""

import re

import pytest

from benchmarks import beyond, report
from tests.test_examples import BEYOND


def test_every_example_beyond_pictures_has_a_line_a_row_and_a_picture():
    rows = report.read(beyond.CSV)
    assert [r["example"] for r in rows] == list(beyond.LINES)
    assert beyond.LINES.keys() == BEYOND.keys()
    shown = re.findall(r"\(beyond/(\w+)\.png\)", beyond.PAGE.read_text())
    assert shown == list(beyond.LINES)
    for name in shown:
        assert (beyond.PICTURES / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_what_the_rows_say():
    page = beyond.PAGE.read_text()
    tables = {
        "beyond": beyond.table(report.read(beyond.CSV)),
        "beyond_memory": beyond.memory_table(report.read(beyond.MEMORY_CSV)),
    }
    for name, text in tables.items():
        assert f"<!-- {name}: start -->\n{text}<!-- {name}: end -->" in page


def test_what_is_predicted_follows_from_what_is_measured():
    found = {(r["by"], int(r["nodes"])): r for r in report.read(beyond.MEMORY_CSV)}
    small, large = found["plain", beyond.SMALL], found["plain", beyond.LARGE]
    assert (small["how"], large["how"]) == ("measured", "predicted")
    share = (beyond.LARGE / beyond.SMALL) ** 2
    assert float(large["extra_mb"]) == pytest.approx(share * float(small["extra_mb"]), rel=1e-3)
    # At least the matrix itself, and what does not grow with its square is little of it.
    assert float(small["extra_mb"]) > 16e-6 * beyond.SMALL**2
    ours = found["fastcl", beyond.LARGE]
    assert ours["how"] == "measured" and float(ours["extra_mb"]) < 16e-6 * beyond.LARGE**2 / 10


def test_memory_of_a_step_is_the_matrix_with_the_usual_code_and_not_with_fastcl():
    nodes = 1500
    ours, plain = (beyond.alone(beyond.step_memory, by, nodes) for by in ("fastcl", "plain"))
    assert plain > 16e-6 * nodes**2 > 2 * ours
