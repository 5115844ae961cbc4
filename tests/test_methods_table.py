"""The table of methods: its lines, and the runs that its figures come from, tiny."""

import copy
import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks import image_methods, methods, methods_index, report, report_methods, text_methods
from benchmarks.image_methods import EdgeConv2d, skip_padding
from fastcl import methods as classes
from fastcl import pretext
from fastcl.evaluate.sentences import SentencePairs
from fastcl.pretrain.data import Images
from fastcl.pretrain.recipes import METHODS

DOCS = report.ROOT / "docs"


def named(module, lines):
    return {line.use.split("(")[0] for line in lines if (line.page == "pretext.md") == module}


def test_every_class_has_a_line_and_every_line_a_class():
    task = {n for n in pretext.__all__ if inspect.isclass(getattr(pretext, n))}
    assert named(False, methods_index.LINES) == set(classes.__all__)
    assert named(True, methods_index.LINES) == task


def test_every_recipe_and_every_run_is_in_the_table():
    assert {r for line in methods_index.LINES for r in line.recipes} == set(METHODS)
    entries = [entry for line in methods_index.LINES for entry in line.entries]
    assert sorted(entries) == sorted(entry.name for entry in methods.entries())


def test_every_page_is_there():
    assert all((DOCS / line.page).exists() for line in methods_index.LINES)


def test_the_committed_table_is_what_the_rows_say():
    rows = report.read(report_methods.RESULTS_CSV) if report_methods.RESULTS_CSV.exists() else []
    page = (DOCS / "methods.md").read_text()
    assert report.insert(page, "methods", methods_index.table(rows)) == page


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Few images and sentences, and results in a folder of their own."""
    torch.manual_seed(0)
    pictures, labels = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8), torch.arange(40) % 2
    images = Images(
        "tiny", "photographs", pictures, pictures[:24], labels, labels[:24], ("one", "two")
    )
    sentences = tuple(f"{animal} {place}" for animal in ("cat", "dog", "owl") for place in "abcd")
    pairs = SentencePairs(sentences, sentences[::-1], torch.rand(len(sentences)))
    page = tmp_path / "page.md"
    page.write_text("<!-- methods: start -->\n<!-- methods: end -->\n")
    for module, name, value in (
        (image_methods, "images", lambda: images), (image_methods, "BATCH", 8),
        (image_methods, "EPOCHS", 2), (image_methods, "OPTIONS", {}),
        (text_methods, "read_pairs", lambda path: pairs), (text_methods, "BATCH", 4),
        (text_methods, "EPOCHS", 1), (report_methods, "INDEX", page),
        (report_methods, "RESULTS_CSV", tmp_path / "results" / "methods.csv"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    # Threads see what is set here, other processes do not.
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        methods, "ProcessPoolExecutor", lambda n, mp_context, **kw: ThreadPoolExecutor(1, **kw)
    )
    image_methods.untrained.cache_clear()
    text_methods.vocabulary.cache_clear()
    yield tmp_path
    torch.set_num_threads(threads)
    image_methods.untrained.cache_clear()
    text_methods.vocabulary.cache_clear()


def run(monkeypatch, *names):
    monkeypatch.setattr(sys, "argv", ["methods", *names])
    methods.main()


def test_a_run_leaves_rows_and_both_tables(tiny, monkeypatch, capsys):
    names = ["simclr", "rotation", "simcse"]
    run(monkeypatch, *names)
    rows = report.read(tiny / "results" / "methods.csv")
    assert sorted(row["method"] for row in rows) == sorted(names)
    rows.sort(key=lambda row: names.index(row["method"]))
    assert all(0 <= float(row["after"]) <= 1 for row in rows[:2])
    assert all(row["commit"] and row["machine"] and float(row["seconds"]) > 0 for row in rows)
    table = (tiny / "results" / "methods.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines()[2:5]] == [f"| {n}" for n in names]
    for row, name in zip(rows, ("SimCLR v1, v2", "Rotation", "SimCSE"), strict=True):
        line = next(x for x in (tiny / "page.md").read_text().splitlines() if f"[{name}]" in x)
        assert f"{float(row['before']):.3f} to {float(row['after']):.3f} |" in line
    capsys.readouterr()
    run(monkeypatch, *names)
    assert capsys.readouterr().out == "", "what has a row is not run again"


def fail():
    raise RuntimeError("no luck")


def succeed(after):
    return {
        "figure": "accuracy", "epochs": torch.get_num_threads(), "before": 0.1, "after": after,
        "rank_before": 1.0, "rank_after": 2.0, "loss_first": 2.0, "loss_last": 1.0,
        "mflop_per_image": 1.0,
    }  # fmt: skip


@pytest.mark.slow
def test_a_method_that_fails_is_named_and_the_others_run_in_processes(monkeypatch, tmp_path):
    (tmp_path / "page.md").write_text("<!-- methods: start -->\n<!-- methods: end -->\n")
    monkeypatch.setattr(report_methods, "INDEX", tmp_path / "page.md")
    monkeypatch.setattr(report_methods, "RESULTS_CSV", tmp_path / "methods.csv")
    entries = [
        report_methods.Entry("rotation", "pretext", fail),
        report_methods.Entry("simclr", "instance discrimination", partial(succeed, 0.25)),
        report_methods.Entry("simcse", "text", partial(succeed, 0.5)),
    ]
    monkeypatch.setattr(methods, "entries", lambda: entries)
    with pytest.raises(SystemExit, match="failed: rotation"):
        run(monkeypatch, "rotation", "simcse", "--workers", "2")
    (row,) = report.read(tmp_path / "methods.csv")
    share = str(max(1, torch.get_num_threads() // 2))
    assert (row["method"], row["after"], row["workers"], row["threads"], row["epochs"]) == (
        "simcse", "0.5", "2", share, share,
    )  # fmt: skip
    with pytest.raises(SystemExit, match="unknown: nothing; there are rotation, simclr, simcse"):
        run(monkeypatch, "nothing")


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_skipped_taps_change_nothing(side, stride, bias):
    plain = nn.Conv2d(3, 4, 3, stride=stride, padding=1, bias=bias).double()
    edge = skip_padding(nn.Sequential(copy.deepcopy(plain)))[0]
    assert isinstance(edge, EdgeConv2d)
    found = []
    for layer in (plain, edge):
        torch.manual_seed(side)
        x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
        y = layer(x)
        y.backward(torch.randn(y.shape, dtype=y.dtype))
        found.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-13)


def test_other_convolutions_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 7, padding=3))
    assert all(type(layer) is nn.Conv2d for layer in skip_padding(network))
