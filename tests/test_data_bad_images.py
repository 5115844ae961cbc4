"""Damaged images, and sets without the labels that a table of accuracies takes."""

import numpy as np
import pytest

for name in ("lightning_fabric", "sklearn", "safetensors", "typer", "spdl.pipeline"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402
from stream_cases import draw_set  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from fastcl.commands import app as commands  # noqa: E402
from fastcl.data.check import check, whole  # noqa: E402
from fastcl.data.folder import Folder  # noqa: E402
from fastcl.pretrain import checkpoint  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402

runner = CliRunner()
pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("data") / "set")


# --- bad images -----------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    """Three files that are no whole images at their ends, and one that is damaged inside."""
    root = draw_set(tmp_path / "set")
    for name, keep in (("c/006.jpg", 0.5), ("d/001.png", 0.9), ("c/002.png", 0.0)):
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(keep * len(data))])
    data = bytearray((root / "d/005.png").read_bytes())
    data[60:80] = bytes(20)
    (root / "d/005.png").write_bytes(data)
    return root


def test_the_check_finds_what_is_cut_off_and_no_more(damaged, folder):
    assert check(Folder(folder)) == {}
    source = Folder(damaged)
    found = check(source)
    assert {source.names[i] for i in found} == {"c/006.jpg", "d/001.png", "c/002.png"}
    with open(damaged / "c/000.jpg", "ab") as file:  # as some cameras do
        file.write(b"and more")
    assert check(Folder(damaged)).keys() == found.keys()


def test_what_is_damaged_inside_is_in_no_table(damaged):
    """Labels stand beside the images that they are of, not beside one in the place of a bad one."""
    images = load_images(str(damaged), size=16, stream="always", bad="skip")
    readable = images.readable()
    splits = "train", "test"
    assert sum(len(getattr(images, s)) - len(getattr(readable, s)) for s in splits) == 1
    assert any("005.png" in line for s in splits for line in getattr(images, s).said)
    for split in splits:
        source, labels = getattr(readable, split).source, getattr(readable, f"{split}_labels")
        names = [source.name(i) for i in range(len(source))]
        assert not any("005.png" in name for name in names) and len(names) == len(labels)
        assert [("c", "d")[label] for label in labels] == [name.split("/")[-2] for name in names]
        assert (getattr(readable, split)[:] != 0).flatten(1).any(1).all(), "a bad one is black"
    kept = load_images(str(damaged.parent / "set"), size=16, stream="never", bad="skip")
    assert kept.readable() is kept


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_ends_of_a_file_tell_whether_it_is_whole(kind, tmp_path):
    path = tmp_path / "a"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(
        path, kind
    )
    data = path.read_bytes()
    assert whole(data[:64], data[-64:], len(data))
    for cut in (0, 1, 30, len(data) // 2, len(data) - 2):
        assert not whole(data[:cut][:64], data[:cut][-64:], cut), cut


def test_a_png_that_would_fill_the_memory_is_found_by_its_head(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "1.png")
    Image.new("1", (9_000, 9_000)).save(tmp_path / "0.png")
    (told,) = check(Folder(tmp_path)).items()
    assert told[0] == 1 and "1.png' is no readable image" in told[1] and "exceeds" in told[1]


@pytest.mark.parametrize("stream", ["always", "never"])
def test_the_first_bad_image_is_an_error_at_the_start(damaged, stream):
    with pytest.raises(ValueError, match=r"(c/002|c/006|d/001).*no readable image.*images skip"):
        load_images(str(damaged), size=16, stream=stream)


@pytest.mark.parametrize("stream", ["always", "never"])
def test_bad_images_are_left_out_counted_and_named(damaged, tmp_path, stream):
    arguments = ["pretrain", "--data", str(damaged), "--method", "simclr", "--stream", stream,
                 "--bad-images", "skip", "--epochs", "2", "--batch-size", "16", "--backbone",
                 "small", "--image-size", "16", "--devices", "1", "--out",
                 str(tmp_path / "run")]  # fmt: skip
    result = runner.invoke(commands.app, arguments)
    assert result.exit_code == 0, result.output
    names = (tmp_path / "run" / "bad_images.txt").read_text().splitlines()
    assert sorted(next(n for n in ("006", "001", "002", "005") if f"{n}." in line)
                  for line in names) == ["001", "002", "005", "006"]  # fmt: skip
    assert "4 images cannot be read and are skipped: " in result.output
    assert ("waiting" in result.output) == (stream == "always")
    again = runner.invoke(commands.app, ["evaluate", str(tmp_path / "run"), "--fractions", ""])
    assert again.exit_code == 0, again.output
    again = runner.invoke(
        commands.app, ["evaluate", str(tmp_path / "run"), "--bad-images", "error"]
    )
    assert again.exit_code == 1 and "is no readable image" in again.output.replace("\n", " ")


def test_a_bad_image_inside_is_an_error_that_names_it(damaged, tmp_path):
    for name in ("c/006.jpg", "d/001.png", "c/002.png"):
        (damaged / name).unlink()
    arguments = ["pretrain", "--data", str(damaged), "--method", "simclr", "--stream", "always",
                 "--batch-size", "16", "--epochs", "2", "--backbone", "small", "--image-size", "16",
                 "--devices", "1", "--out", str(tmp_path / "run")]  # fmt: skip
    result = runner.invoke(commands.app, arguments)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "005.png' is no readable image" in result.output.replace("\n", "")


# --- kinds of data --------------------------------------------------------------------------


def sets(root):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 18, 18, 3), dtype=np.uint8)
    for i, image in enumerate(map(Image.fromarray, pixels)):
        for name in ("flat", "one/single", f"mixed/train/{'ab'[i % 2]}", "mixed/test"):
            (root / name).mkdir(parents=True, exist_ok=True)
            image.save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("name", ["flat", "one", "mixed"])
@pytest.mark.parametrize("stream", ["always", "never"])
def test_sets_without_two_classes_finish_without_accuracies(tmp_path, name, stream):
    root = sets(tmp_path)
    result = runner.invoke(commands.app, [
        "pretrain", "--data", str(root / name), "--method", "simclr", "--epochs", "1",
        "--batch-size", "16", "--backbone", "small", "--devices", "1", "--stream", stream,
        "--out", str(tmp_path / "run"),
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "it takes labels of two classes in both splits" in result.output
    assert checkpoint.load_checkpoint(tmp_path / "run" / checkpoint.NAME)["epoch"] == 1
