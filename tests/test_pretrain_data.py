"""Every source of images, the views made of them, and the networks they go through."""

import io
import os
import tarfile
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from shared import SHARED

for name in ("sklearn", "PIL"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402

from fastcl.data import jpeg  # noqa: E402
from fastcl.pretrain.augment import Views  # noqa: E402
from fastcl.pretrain.backbone import build_backbone  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402
from fastcl.views import Digits, MoCoV2  # noqa: E402

CIFAR = SHARED / "data" / "cifar10" / "cifar10-jpeg.npz"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_digits_have_a_fixed_split_and_all_grey_levels():
    images = load_images("digits")
    assert images.train.shape == (1297, 1, 8, 8) and images.test.shape == (500, 1, 8, 8)
    assert images.train.dtype == torch.uint8 and images.train.max() == 255
    assert torch.equal(images.test, load_images("digits").test)
    assert images.classes == tuple("0123456789") and images.labelled
    mean, deviation = images.statistics()
    x = images.train.double() / 255
    torch.testing.assert_close(mean[0].double(), x.mean())
    torch.testing.assert_close(deviation[0].double(), x.std(correction=0))


def draw(path, colour, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_folder_of_classes(tmp_path):
    for i in range(5):
        draw(tmp_path / "set" / "cat" / f"{i}.png", (255, 0, 0))
        draw(tmp_path / "set" / "dog" / f"{i}.jpg", (0, 0, 255))
    images = load_images(str(tmp_path / "set"))
    assert images.classes == ("cat", "dog") and images.kind == "photographs"
    assert images.train.shape == (8, 3, 9, 9) and images.test.shape == (2, 3, 9, 9)
    red = images.train[:, 0].float().mean((1, 2)) > 128
    assert torch.equal(images.train_labels, (~red).long())
    assert load_images(str(tmp_path / "set"), size=4).size == 4


def test_folder_with_its_own_split_and_flat_folder(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            draw(tmp_path / "set" / split / "cat" / f"{i}.png", "red")
            draw(tmp_path / "flat" / f"{split}{i}.png", "blue")
    images = load_images(str(tmp_path / "set"))
    assert (len(images.train), len(images.test)) == (3, 2)
    flat = load_images(str(tmp_path / "flat"))
    assert (len(flat.train), len(flat.test), flat.labelled) == (4, 1, False)


@pytest.mark.parametrize(
    ("shape", "channels"), [((10, 8, 8), 1), ((10, 8, 8, 3), 3), ((10, 3, 8, 8), 3)]
)
def test_npz_of_pixels(tmp_path, shape, channels):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(10) % 2)
    images = load_images(str(tmp_path / "set.npz"))
    assert images.train.shape == (8, channels, 8, 8) and images.classes == ("0", "1")
    np.savez(tmp_path / "two.npz", train_images=pixels[:7], test_images=pixels[7:])
    two = load_images(str(tmp_path / "two.npz"))
    assert (len(two.train), len(two.test), two.labelled) == (7, 3, False)
    assert torch.equal(two.train.float().mean(), torch.from_numpy(pixels[:7]).float().mean())


def jpeg_npz(path, count=6, **changed):
    files = []
    for i in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(buffer, "JPEG", quality=95)
        files.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    offsets = np.cumsum([0, *(len(file) for file in files)])
    arrays = {
        "train_jpeg": np.concatenate(files),
        "train_offsets": offsets,
        "train_labels": np.arange(count, dtype=np.uint8),
    }
    np.savez(path, **(arrays | changed))


def test_jpeg_npz_is_decoded_once(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    jpeg_npz(path)
    first = load_images(str(path))
    red = first.train[:, 0].float().mean((1, 2))
    assert ((red - 40 * first.train_labels).abs() < 4).all()
    monkeypatch.setattr(jpeg, "_decode", lambda *_: pytest.fail("decoded a second time"))
    assert torch.equal(load_images(str(path)).train, first.train)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jpeg_npz(path, count=8)  # other contents under the same name
    assert len(load_images(str(path)).train) + len(load_images(str(path)).test) == 8


def test_a_damaged_cache_is_made_again(tmp_path):
    path = tmp_path / "set.npz"
    jpeg_npz(path)
    first = load_images(str(path))
    (cached,) = (tmp_path / "cache" / "fastcl").iterdir()
    for damage in (lambda b: b[: len(b) // 2], lambda b: b[:200] + bytes(90) + b[290:]):
        cached.write_bytes(damage(cached.read_bytes()))
        assert torch.equal(load_images(str(path)).train, first.train)


@pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data/cifar10")
def test_slice_of_cifar(tmp_path):
    with np.load(CIFAR) as whole:
        offsets = {s: whole[f"{s}_offsets"][:41] for s in ("train", "test")}
        arrays = {"class_names": whole["class_names"]}
        for s, cut in offsets.items():
            arrays[f"{s}_jpeg"] = whole[f"{s}_jpeg"][: cut[-1]]
            arrays[f"{s}_offsets"], arrays[f"{s}_labels"] = cut, whole[f"{s}_labels"][:40]
    np.savez(tmp_path / "cifar.npz", **arrays)
    images = load_images(str(tmp_path / "cifar.npz"))
    assert images.train.shape == images.test.shape == (40, 3, 32, 32)
    assert "frog" in images.classes and images.train.float().std() > 30


def bad_sources(folder):
    pixels = np.zeros((4, 8, 8), dtype=np.uint8)
    (folder / "text.npz").write_text("no archive")
    np.savez(folder / "keys.npz", other=pixels)
    np.savez(folder / "float.npz", images=pixels.astype(np.float32))
    np.savez(folder / "wide.npz", images=np.zeros((4, 8, 9), dtype=np.uint8))
    np.savez(folder / "labels.npz", images=pixels, labels=np.zeros(3, dtype=np.int64))
    np.savez(folder / "real.npz", images=pixels, labels=np.zeros(4))
    np.savez(folder / "one.npz", images=pixels[:1])
    jpeg_npz(folder / "offsets.npz", train_offsets=np.array([0, 50, 20]))
    jpeg_npz(folder / "broken.npz", train_jpeg=np.zeros(9, dtype=np.uint8),
             train_offsets=np.array([0, 9]), train_labels=np.zeros(1))  # fmt: skip
    (folder / "empty").mkdir()
    draw(folder / "both" / "a.png", "red")
    draw(folder / "both" / "class" / "b.png", "red")
    draw(folder / "photo.jpg", "red")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / "photo.jpg", "a/photo.jpg")
    with tarfile.open(folder / "photos.tar.gz", "w:gz") as archive:
        archive.add(folder / "photo.jpg", "photo.jpg")
    os.mkfifo(folder / "pipe.npz")
    (folder / "fake").mkdir()
    for name in "ab":
        (folder / "fake" / f"{name}.png").write_text("no image")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.npz", "must be an .npz file, or a folder, .*: it begins with b'no arc'"),
        ("photo.jpg", "must be an .npz file, or a folder, .*: it begins with"),
        ("photos.tar.gz", "must be an .npz file, or a folder, .*: it begins with"),
        ("photos.zip", "must hold 'images'.*it holds a/photo.jpg"),
        ("pipe.npz", "data must be a file or a folder"),
        ("keys.npz", "must hold 'images'.*it holds other"),
        ("float.npz", "must be uint8 or uint16, got float32"),
        ("wide.npz", "must be square, got 8 x 9"),
        ("labels.npz", "labels must have 4 entries, got 3"),
        ("real.npz", "labels must be a vector of integers"),
        ("one.npz", "at least 2 images"),
        ("offsets.npz", "train_offsets.*must rise"),
        ("broken.npz", r"image 0 of train in '.*broken.npz' is no readable image"),
        ("empty", "holds no image"),
        ("both", "not both"),
        ("fake", "no readable image"),
    ],
)
def test_bad_contents_are_named(tmp_path, name, message):
    bad_sources(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_images(str(tmp_path / name))


def test_missing_path_is_named():
    with pytest.raises(FileNotFoundError, match="nothing is at 'no/such/place'"):
        load_images("no/such/place")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("digits", (5, 1, 8, 8)), ("photographs", (5, 3, 32, 32)), ("photographs", (5, 3, 96, 96))],
)
def test_views(kind, shape):
    views = Views(kind, shape[2], (torch.zeros(shape[1]), torch.ones(shape[1])), crops=3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    before = images.clone()
    torch.manual_seed(1)
    first, second = views(images, 2)
    assert first.shape == shape and first.dtype == torch.float32
    assert first.isfinite().all() and first.min() >= -1e-4 and first.max() <= 1 + 1e-4
    assert not torch.equal(first, second), "two views of a batch must differ"
    torch.manual_seed(1)
    assert torch.equal(first, views(images, 2)[0]), "the seed decides the view"
    assert torch.equal(images, before)
    assert views.labelled(images).shape == shape
    if kind == "photographs":
        side = round(shape[2] * 3 / 7)
        assert [x.shape for x in views.small_crops(images)] == 3 * [(5, 3, side, side)]


def test_views_are_normalised_by_the_training_images():
    images = load_images("digits")
    (x,) = Views(images.kind, images.size, images.statistics())(images.train)
    assert abs(x.mean()) < 0.2 and 0.7 < x.std() < 1.3


@pytest.mark.parametrize(
    ("name", "channels", "size", "stem", "width", "millions"),
    [
        ("small", 1, 8, "auto", 128, 0.24),
        ("resnet18", 3, 32, "auto", 512, 11.17),  # with the ImageNet classifier: 11.69
        ("resnet18", 3, 64, "imagenet", 512, 11.18),
        ("resnet50", 3, 32, "cifar", 2048, 23.50),  # with the classifier: 25.56
        ("resnet50", 3, 96, "auto", 2048, 23.51),
    ],
)
def test_backbones(name, channels, size, stem, width, millions):
    backbone, features = build_backbone(name, channels=channels, size=size, stem=stem)
    assert features == width
    count = sum(p.numel() for p in backbone.parameters())
    assert abs(count / 1e6 - millions) < 0.006
    assert backbone.eval()(torch.randn(2, channels, size, size)).shape == (2, width)


def test_stem_follows_the_size():
    positions = {}
    for size in (32, 96):
        network, _ = build_backbone("resnet18", channels=3, size=size)
        positions[size] = network.eval().maps(torch.randn(1, 3, size, size)).shape[2:]
    assert positions == {32: (4, 4), 96: (3, 3)}


def test_unknown_backbones_are_named():
    with pytest.raises(ValueError, match="backbone must be small, .*got 'vgg'"):
        build_backbone("vgg", channels=3, size=32)
    with pytest.raises(ValueError, match="stem must be"):
        build_backbone("small", channels=3, size=32, stem="wide")
    with pytest.raises(ValueError, match="backbone must be"):
        build_backbone("keras:vgg", channels=3, size=32)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_other_libraries(library):
    if find_spec(library) is None:
        with pytest.raises(ImportError, match=f"pip install {library}"):
            build_backbone(f"{library}:resnet18", channels=3, size=32)
    else:
        backbone, width = build_backbone(f"{library}:resnet18", channels=3, size=32)
        assert width == 512 and backbone(torch.randn(2, 3, 32, 32)).shape == (2, 512)
        with pytest.raises(ValueError, match="has no model"):
            build_backbone(f"{library}:no_such", channels=3, size=32)


@pytest.mark.parametrize(("kind", "channels"), [("digits", 1), ("photographs", 3)])
def test_strength_of_the_views(kind, channels):
    images = torch.randint(0, 256, (64, channels, 16, 16), dtype=torch.uint8)
    numbers = torch.zeros(channels), torch.ones(channels)

    def distance(strength):
        torch.manual_seed(0)
        (views,) = Views(kind, 16, numbers, strength=strength)(images)
        x = images.float() / 255
        near = torch.minimum((views - x).square().mean((1, 2, 3)),
                             (views - x.flip(3)).square().mean((1, 2, 3)))  # fmt: skip
        return near.mean()

    # Differences of small drawings and noise saturate soon.
    assert distance(0.0) < 1e-8 < distance(0.1) < distance(1.0)
    torch.manual_seed(0)
    plain = (
        Digits(1) if kind == "digits"
        else MoCoV2(16, MoCoV2.RECIPES[:1], mean=None, deviation=None)
    )  # fmt: skip
    expected = plain(images)
    torch.manual_seed(0)
    assert torch.equal(Views(kind, 16, numbers)(images), expected), "1 is the recipes'"
