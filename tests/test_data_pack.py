"""Shards hold what the folder held, go on after a kill, and are found damaged where they are."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

for name in ("PIL", "filelock"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402

from fastcl.data import BadImage, Shards, open_images, shrink  # noqa: E402
from fastcl.data.order import permutation  # noqa: E402
from fastcl.data.pack import pack  # noqa: E402
from fastcl.data.square import read_pixels  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def draw(root, count=23, splits=("train", "val")):
    """Pictures of many sizes, whose pixels are noise of their own."""
    random = np.random.default_rng(3)
    for i in range(count):
        split = splits[i % 4 == 3] if len(splits) > 1 else splits[0]
        path = root / split / ("cat", "dog")[i % 2] / f"a.b {i}.{('jpg', 'png', 'webp')[i % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + i, 64 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("set"))


def contents(source):
    """Bytes of every image with the name of its class."""
    return sorted((source.read(i), source.classes[source.labels[i]]) for i in range(len(source)))


def test_files_as_they_are(folder, tmp_path):
    told = []
    counts = pack(folder, tmp_path, per_shard=5, tell=told.append)
    assert counts == {"train": 18, "test": 5}
    names = [f"train-{k:06}.tar" for k in range(4)] + ["test-000000.tar"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "fastcl.json"])
    assert told[0] == "train-000000.tar: 5 images, shard 1 of 4" and len(told) == 5
    before, after = open_images(folder), open_images(tmp_path)
    for split in ("train", "test"):
        assert contents(before[split]) == contents(after[split])
        assert after[split].classes == ("cat", "dog") == before[split].classes
    labels = open_images(tmp_path)["train"].labels
    assert 0 < labels[:9].mean() < 1, "shuffled: a folder is sorted by class"
    single = open_images(tmp_path / "train-000000.tar")["train"]
    assert len(single) == 5 and single.classes == ("cat", "dog")


def test_what_is_larger_is_resized(folder, tmp_path):
    pack(folder, tmp_path / "small", shorter_side=30)
    pack(folder, tmp_path / "again", quality=20)
    before = open_images(folder)["train"]
    sizes = {Image.open(io.BytesIO(before.read(i))).size for i in range(18)}
    small = open_images(tmp_path / "small")["train"]
    for i in range(18):
        data = small.read(i)
        image = Image.open(io.BytesIO(data))
        assert min(image.size) <= 30
        if min(image.size) == 30 and data not in [x for x, _ in contents(before)]:
            assert image.format == "JPEG" and any(
                abs(image.size[0] / image.size[1] - w / h) < 0.05 and min(w, h) > 30
                for w, h in sizes
            )
    kept = {data for data, _ in contents(before)} & {data for data, _ in contents(small)}
    assert 0 < len(kept) < 18
    again = open_images(tmp_path / "again")["train"]
    assert {Image.open(io.BytesIO(again.read(i))).format for i in range(18)} == {"JPEG"}


def test_arrays_become_png_and_stay_what_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 3, 9, 9), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(7))
    assert pack(tmp_path / "a.npz", tmp_path / "out") == {"train": 7}
    found = open_images(tmp_path / "out")["train"]
    for i in range(7):
        assert (read_pixels(found, i) == pixels[found.labels[i]]).all()


def test_the_same_call_checks_and_repairs(folder, tmp_path, monkeypatch):
    pack(folder, tmp_path, per_shard=6)
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    written = []
    real = shrink.Encoding.file_of
    monkeypatch.setattr(shrink.Encoding, "file_of",
                        lambda self, s, i: written.append(i) or real(self, s, i))  # fmt: skip
    pack(folder, tmp_path, per_shard=6)
    assert not written, "nothing was missing"
    damaged = bytearray(whole["train-000001.tar"])
    damaged[700] ^= 1
    (tmp_path / "train-000001.tar").write_bytes(damaged)
    (tmp_path / "test-000000.tar").unlink()
    (tmp_path / "train-000000.tar.77.tmp").write_bytes(b"left by a kill")
    pack(folder, tmp_path, per_shard=6)
    assert len(written) == 6 + 5
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == whole


def test_other_folders_and_arguments_are_named(folder, tmp_path):
    pack(folder, tmp_path / "a", per_shard=9)
    with pytest.raises(
        ValueError, match="is another pack: quality None there, 50 now; per_shard 9"
    ):
        pack(folder, tmp_path / "a", quality=50)
    other = draw(tmp_path / "other", count=24)
    with pytest.raises(ValueError, match="is a pack of other images"):
        pack(other, tmp_path / "a", per_shard=9)
    with pytest.raises(ValueError, match="must be empty or a pack, it holds 'train'"):
        pack(folder, other)
    (tmp_path / "a" / "fastcl.json").write_text("[")
    with pytest.raises(ValueError, match=r"fastcl.json' is damaged"):
        pack(folder, tmp_path / "a", per_shard=9)
    for given, message in (({"quality": 96}, "quality must be from 1 to 95, got 96"),
                           ({"per_shard": 0}, "per_shard must be 1 or more"),
                           ({"shorter_side": 0}, "shorter_side must be 1 or more"),
                           ({"bad": "hide"}, "bad must be one of")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            pack(folder, tmp_path / "b", **given)
    assert not (tmp_path / "b").exists()
    np.savez(tmp_path / "many.npz", images=np.zeros((4, 5, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="images of 5 channels have no file format: 1 or 3 do"):
        pack(tmp_path / "many.npz", tmp_path / "c")
    assert not list((tmp_path / "c").glob("*.tar*"))


def test_bad_images_are_an_error_or_left_out_and_named(folder, tmp_path):
    copied = tmp_path / "set"
    shutil.copytree(folder, copied)
    files = sorted(copied.rglob("train/*/*"))
    bad = [files[i] for i in permutation(len(files), 0, 0)[-2:]]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(b"no image")
    with pytest.raises(BadImage, match="a.b.*; --bad-images skip goes on without such images"):
        pack(copied, tmp_path / "error", per_shard=3)
    assert len(list((tmp_path / "error").glob("*.tar"))) == 5, "whole shards stay"
    assert pack(copied, tmp_path / "skip", bad="skip")["train"] == 16
    said = (tmp_path / "skip" / "bad_images.txt").read_text().splitlines()
    assert len(said) == 2 and all(any(str(path) in line for line in said) for path in bad)
    assert pack(copied, tmp_path / "skip", bad="skip")["train"] == 16
    # What is done is not done again where the answer to bad images changes.
    assert pack(copied, tmp_path / "error", per_shard=3, bad="skip")["train"] == 16
    with pytest.raises(BadImage, match="such images"):
        pack(copied, tmp_path / "error", per_shard=3)


KILLED = """
import sys
from fastcl.data import pack, shrink
import time
real = shrink.Encoding.file_of
shrink.Encoding.file_of = lambda self, s, i: (time.sleep(0.02), real(self, s, i))[1]
pack.pack(sys.argv[1], sys.argv[2], per_shard=3)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(folder, tmp_path):
    pack(folder, tmp_path / "whole", per_shard=3)
    out = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    begun = set()
    for life in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(out)], env=environment
        )
        limit = time.monotonic() + 60
        while not (out / "fastcl.json").exists() and time.monotonic() < limit:
            time.sleep(0.01)
        shards = len(list(out.glob("*.tar")))
        while len(list(out.glob("*.tar"))) == shards and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.03 * life)
        process.send_signal(signal.SIGKILL)
        process.wait()
        begun.add(len(json.loads((out / "fastcl.json").read_text())["shards"]))
    assert len(begun) > 1, "killed at several places"
    pack(folder, out, per_shard=3)
    names = {p.name for p in (tmp_path / "whole").iterdir()}
    assert {p.name for p in out.iterdir()} == names
    assert all((out / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_webdataset_reads_it(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    pack(folder, tmp_path, per_shard=6, quality=90)
    paths = [str(path) for path in sorted(tmp_path.glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"))
    ours = Shards([Path(path) for path in paths])
    assert len(samples) == len(ours) == 18
    for i, sample in enumerate(samples):
        assert sample["cls"] == ours.labels[i]
        assert np.array(Image.open(io.BytesIO(ours.read(i)))).shape == sample["jpg"].shape
    assert sorted({sample["__key__"] for sample in samples}) == [f"{i:09}" for i in range(18)]


def test_the_command(folder, tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from fastcl.commands.app import app

    given = ["pack", str(folder), str(tmp_path / "out"), "--quality", "80"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert "packed and checked: 18 of train, 5 of test" in done.output
    with tarfile.open(tmp_path / "out" / "test-000000.tar") as archive:
        assert archive.getnames()[:2] == ["000000000.jpg", "000000000.cls"]
        assert len(archive.getnames()) == 10
    done = CliRunner().invoke(app, [*given, "--seed", "1"])
    assert done.exit_code == 1 and "is another pack" in done.output
