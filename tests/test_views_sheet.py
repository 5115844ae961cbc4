"""`fastcl views`: what is in the picture."""

import numpy as np
import pytest
import torch

for name in ("typer", "rich", "PIL", "simplejpeg"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fastcl import views  # noqa: E402
from fastcl.commands import app as commands  # noqa: E402
from fastcl.commands import choices  # noqa: E402
from fastcl.commands import views as command  # noqa: E402
from fastcl.views.sheet import GAP, contact_sheet  # noqa: E402

runner = CliRunner()


@pytest.fixture
def folder(tmp_path):
    """Seven plain images of many sizes, each of its own grey."""
    for i in range(7):
        place = tmp_path / "images" / ("a" if i < 3 else "b")
        place.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (30 + 9 * i, 50 - 4 * i), (20 + 30 * i,) * 3)
        image.save(place / (f"{i}.png" if i % 2 else f"{i}.jpg"))
    return tmp_path / "images"


def sheet(folder, tmp_path, *arguments):
    out = tmp_path / "sheet.png"
    result = runner.invoke(commands.app, ["views", str(folder), "--out", str(out), *arguments])
    assert result.exit_code == 0, result.output
    return np.asarray(Image.open(out)).astype(int)


@pytest.mark.parametrize("preset", choices.PRESETS)
def test_every_preset_has_a_sheet(preset, tmp_path):
    pixels = torch.randint(0, 256, (9, 8, 8, 3 if preset != "digits" else 1), dtype=torch.uint8)
    np.savez(tmp_path / "set.npz", images=pixels.numpy())
    x = sheet(tmp_path / "set.npz", tmp_path, "--preset", preset, "--size", "8", "--count", "3")
    views_of = {"swav": 2, "dino": 2, "supervised": 1, "evaluation": 1}.get(preset, 2)
    small = {"swav": 6, "dino": 8}.get(preset, 0)
    height = (1 + views_of) * (8 + GAP) + small * (3 + GAP) - GAP
    assert x.shape == (height, 3 * 8 + 2 * GAP, 3) and x.std() > 10


def test_names_are_those_of_the_command():
    assert set(choices.PRESETS) == {*command.PRESETS, "digits"}


def test_columns_are_images_and_rows_their_views(folder, tmp_path):
    x = sheet(folder, tmp_path, "--preset", "supervised", "--size", "16", "--count", "5")
    top, view = x[8, 8 :: 16 + GAP, 0], x[16 + GAP + 8, 8 :: 16 + GAP, 0]
    greys = {20 + 30 * i for i in range(7)}
    assert len(set(top)) == 5 and set(top) <= greys and np.abs(top - view).max() <= 1
    assert (x[:, 16 : 16 + GAP] == 255).all()


def test_the_seed_decides(folder, tmp_path):
    first, again, other = (
        sheet(folder, tmp_path, "--size", "16", "--seed", seed) for seed in ("3", "3", "4")
    )
    assert (first == again).all() and (first != other).any()


def test_one_image_is_a_folder_of_one(folder, tmp_path):
    assert sheet(folder / "b" / "3.png", tmp_path, "--size", "16").shape == (56, 16, 3)


def test_small_views_are_magnified():
    x = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    still = views.Digits(1, degrees=0, shift=0, scale=1, shear=0, noise=0, brightness=0)
    found = contact_sheet(still, list(x), 32)
    assert found.shape == (3, 64 + GAP, 64 + GAP)
    assert torch.equal(found[0, :32:4, :32:4], x[0, 0])
    assert torch.equal(found[0, 32 + GAP :: 4, 32 + GAP :: 4], x[1, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/place"], "nothing is at '/no/such/place'"),
        (["."], "holds no image: expected files .jpg"),
        (["bad.jpg"], "bad.jpg' is no readable image"),
        (["bad.jpg", "--preset", "moco-v9"], "moco-v9"),
        (["good.png", "--size", "8", "--out", "no/folder.png"], "no/folder.png"),
    ],
)
def test_mistakes_get_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "bad.jpg" in arguments:
        (tmp_path / "bad.jpg").write_text("no image")
    if "good.png" in arguments:
        Image.new("RGB", (9, 9)).save("good.png")
    result = runner.invoke(commands.app, ["views", *arguments])
    assert result.exit_code != 0 and message in " ".join(result.output.split())
    assert "Traceback" not in result.output
