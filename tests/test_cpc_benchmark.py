"""benchmarks.cpc: patches are moved within their places, and the table is its rows."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from test_accuracy_benchmark import tiny_images

from benchmarks import cpc, report


def test_a_patch_is_moved_within_its_place():
    torch.manual_seed(0)
    x = torch.rand(40, 2, 3, 1, cpc.PATCH, cpc.PATCH) + 1
    found = cpc.moved(x)
    there = found != 0
    assert torch.equal(found[there], x[there])
    inner = cpc.PATCH - cpc.MOVED
    rows, columns = there.any(-1).squeeze(3), there.any(-2).squeeze(3)
    assert (there.sum((3, 4, 5)) == inner**2).all() and (rows.sum(-1) == inner).all()
    firsts = rows.int().argmax(-1), columns.int().argmax(-1)
    assert all(x.unique().tolist() == list(range(cpc.MOVED + 1)) for x in firsts)


@pytest.mark.parametrize("setting", cpc.SETTINGS.values(), ids=lambda x: x.name)
def test_training_and_features(setting):
    torch.manual_seed(0)
    method, images = cpc.Patches(setting), tiny_images()
    losses = cpc.trained(method, images, replace(setting, epochs=4, batch=8))
    assert len(losses) == 4 and all(0 < x < 2 * math.log(8 * 49) for x in losses)
    method.eval()
    x = torch.rand(5, 3, 32, 32)
    features = cpc.Averaged(method)(x)
    places = method.backbone(method.patches(x).flatten(0, 2)).view(5, 7 * 7, cpc.CHANNELS[-1])
    torch.testing.assert_close(features, places.mean(1))


def test_a_row_measured_again_takes_the_place_of_the_old(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cpc, "row", lambda x: {**rows[x.name], "epochs": x.epochs})
    rows, path = {x["name"]: x for x in report.read(cpc.ROWS)}, tmp_path / "cpc.csv"
    for epochs in ("8", "3"):
        monkeypatch.setattr(sys, "argv", ["cpc", "--rows", str(path), "--epochs", epochs])
        cpc.main()
    monkeypatch.setattr(sys, "argv", ["cpc", "paper's way", "--rows", str(path)])
    cpc.main()
    found = [(x["name"], x["epochs"]) for x in report.read(path)]
    assert found == list(zip(cpc.SETTINGS, ("8", "3"), strict=True))
    assert "8 passes" in capsys.readouterr().out


def test_the_committed_table_is_its_rows():
    text = cpc.table(report.read(cpc.ROWS))
    page = cpc.PAGE.read_text()
    assert text in page and report.insert(page, "cpc", text) == page
