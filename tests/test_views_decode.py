"""Decoded records: files and bytes, threads, and what is no image."""

import copy
import io
from pathlib import PurePath

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from fastcl import views  # noqa: E402
from fastcl.data import BadImage, decoding  # noqa: E402
from fastcl.data import decode as decode_one  # noqa: E402
from fastcl.data.orientation import Head  # noqa: E402


def encoded(i, kind="JPEG", **options):
    height, width = 20 + 7 * i, 50 - 3 * i
    pixels = np.random.default_rng(i).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    image = Image.fromarray(pixels.astype(np.uint8)).resize((width, height))
    buffer = io.BytesIO()
    image.convert(options.pop("mode", "RGB")).save(buffer, kind, **options)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "jpeg": encoded(0), "png": encoded(1, "PNG"), "grey": encoded(2, mode="L"),
    "cmyk": encoded(3, mode="CMYK"), "turned": encoded(4, exif=TURNED),
    "progressive": encoded(5, progressive=True), "webp": encoded(6, "WEBP"),
}  # fmt: skip


@pytest.fixture(params=["simplejpeg", "simplejpeg, whole files", "Pillow alone"])
def decoder(request, monkeypatch):
    if request.param == "Pillow alone":
        monkeypatch.setattr(decoding, "simplejpeg", None)
        return
    pytest.importorskip("simplejpeg")
    if "whole" in request.param:
        monkeypatch.setattr(decoding, "_jpeg", None)


@pytest.mark.parametrize("threads", [1, 3])
def test_each_is_the_image_alone(decoder, threads):
    packed = views.decode(list(FILES.values()), threads=threads)
    expected = [decode_one(data, name) for name, data in FILES.items()]
    for found, image in zip(views.unpack(packed), expected, strict=True):
        assert found.dtype == torch.uint8 and torch.equal(found, image)
    assert all(torch.equal(*pair) for pair in zip(packed, views.pack(expected), strict=True))


def test_paths_and_bytes(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / "jpeg", str(tmp_path / "png"), FILES["webp"]]
    packed = views.decode(paths)
    alone = [views.decode(path) for path in paths]
    assert torch.equal(packed.pixels, torch.cat([one.pixels for one in alone]))
    assert packed.sizes.tolist() == [one.sizes[0].tolist() for one in alone]


def test_a_record_becomes_views(decoder):
    packed = views.decode(list(FILES.values()))
    module = views.SimCLR(16)
    torch.manual_seed(0)
    first = module(packed)
    torch.manual_seed(0)
    assert torch.equal(first, module(views.unpack(packed))) and first.shape == (2, 7, 3, 16, 16)


MODULES = {
    "two views": views.SimCLR(16),
    "as bytes of 16 bits": views.BYOL(
        100, dtype=torch.bfloat16, memory_format=torch.channels_last, mean=None
    ),
    "of two sizes": views.DINO(24, 9, 3),
    "one view": views.Supervised(8),
    "nothing random": views.Evaluation(8),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_loaded_views_are_those_of_the_record(tmp_path, decoder, module, threads):
    (tmp_path / "one.png").write_bytes(FILES["png"])
    files = [*FILES.values(), tmp_path / "one.png", FILES["jpeg"]]
    given = torch.Generator()
    found = module.load(files, threads=threads, generator=given.manual_seed(5))
    expected = module(views.decode(files), given.manual_seed(5))
    pairs = zip(found, expected, strict=True) if isinstance(found, list) else [(found, expected)]
    for ours, theirs in pairs:
        assert ours.stride() == theirs.stride() and torch.equal(ours, theirs)
    again = module.load(files, threads=threads, generator=given.manual_seed(9))
    written = module.load(files, threads=threads, generator=given.manual_seed(9), out=found)
    if isinstance(found, list):
        pairs = list(zip(found, again, written, strict=True))
    else:
        pairs = [(found, again, written)]
    for memory, views_of_it, ours in pairs:
        assert ours.data_ptr() == memory.data_ptr() and ours.stride() == memory.stride()
        assert torch.equal(ours, views_of_it)


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_views_are_loaded_by_chance(decoder, module):
    files, given = list(FILES.values()), torch.Generator().manual_seed(5)
    found, again = (module.load(files, generator=given) for _ in "12")
    alike = isinstance(found, torch.Tensor) and torch.equal(again, found)
    assert alike == isinstance(module, views.Evaluation)


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_views_that_nobody_holds_give_their_memory(module):
    files, given = [FILES["jpeg"], FILES["png"]], torch.Generator()

    def loaded(seed):
        found = module.load(files, generator=given.manual_seed(seed))
        return found if isinstance(found, list) else [found]

    first = loaded(1)
    kept = [x.clone() for x in first]
    part, place = first[0][..., 1:], first[0].data_ptr()
    second = loaded(2)
    assert all(torch.equal(*pair) for pair in zip(first, kept, strict=True))
    del first
    assert loaded(3)[0].data_ptr() != place, "a part of it is held"
    assert torch.equal(part, kept[0][..., 1:])
    expected = [x.clone() for x in second]
    del part
    again = loaded(2)
    assert place in [x.data_ptr() for x in [*again, *loaded(4)]]
    assert all(torch.equal(*pair) for pair in zip(again, expected, strict=True))
    assert copy.deepcopy(module).memory.free == {}, "no memory goes with a copy"


def test_loading_names_what_is_wrong(tmp_path, decoder):
    module = views.SimCLR(8)
    with pytest.raises(BadImage, match=r"files\[1\] is no readable image"):
        module.load([FILES["png"], FILES["jpeg"][:-200]], threads=2)
    with pytest.raises(BadImage, match="none.jpg' cannot be read: No such file"):
        module.load(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="files must hold one file at least, got none"):
        module.load([])
    with pytest.raises(ValueError, match="threads must be 1 or more, got 0"):
        module.load([FILES["jpeg"]], threads=0)
    with pytest.raises(ValueError, match=r"mean must have shape \[3\], got \[1\]"):
        views.SimCLR(8, mean=(0.5,)).load([FILES["jpeg"]])
    for out, error, message in (
        (torch.empty(2, 2, 3, 8, 8), ValueError, r"\[2, 1, 3, 8, 8\], got \[2, 2, 3, 8, 8\]"),
        (torch.empty(2, 1, 3, 8, 9)[..., :8], ValueError, "out must be contiguous"),
        (torch.empty(1, 3, 8, 8), ValueError, r"out must have shape \[2, 1, 3, 8, 8\]"),
        (torch.empty(2, 1, 3, 8, 8).half(), TypeError, "out must be torch.float32"),
        ([torch.empty(2, 1, 3, 8, 8)] * 2, ValueError, "out must hold 1 tensors, got 2"),
        ([3], TypeError, "out must be a"),
    ):
        with pytest.raises(error, match=message):
            module.load([FILES["jpeg"]], out=out)
    with pytest.raises(ValueError, match="dtype must be one of"):
        views.SimCLR(8, dtype=torch.float64).load([FILES["jpeg"]])


def test_a_head_that_tells_other_sides_is_named(monkeypatch):
    pytest.importorskip("simplejpeg")
    monkeypatch.setattr(decoding, "jpeg_head", lambda data: Head((9, 9), 1))
    monkeypatch.setattr(decoding, "decode_jpeg", lambda *given: None)
    monkeypatch.setattr(decoding, "decode_pixels", lambda *given: np.zeros((9, 8, 3), np.uint8))
    for made in (views.decode, views.Evaluation(4).load):
        with pytest.raises(BadImage, match=r"files\[0\] is no .* \[9, 9, 3\] by its head, got"):
            made([FILES["jpeg"]])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "bad", [b"", b"no image", FILES["jpeg"][:-200], FILES["png"][:-60], FILES["jpeg"][:30]]
)
def test_a_bad_file_is_named(tmp_path, decoder, bad, threads):
    path = tmp_path / "bad.jpg"
    path.write_bytes(bad)
    with pytest.raises(BadImage, match=r"bad\.jpg' is no readable image"):
        views.decode([FILES["jpeg"], path], threads=threads)
    with pytest.raises(BadImage, match=r"files\[2\] is no readable image"):
        views.decode([FILES["jpeg"], FILES["png"], bad], threads=threads)


def test_bad_input_is_named(tmp_path):
    with pytest.raises(BadImage, match="none.jpg' cannot be read: No such file"):
        views.decode(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="files must hold one file at least, got none"):
        views.decode([])
    with pytest.raises(TypeError, match=r"files\[1\] must be a path or bytes, got int"):
        views.decode([b"", 3])
    with pytest.raises(ValueError, match="threads must be 1 or more, got 0"):
        views.decode([FILES["jpeg"]], threads=0)


def test_what_holds_bytes_and_what_is_a_path(tmp_path):
    data, path = FILES["png"], tmp_path / "one.png"
    path.write_bytes(data)
    pure, plain = PurePath(path), views.decode([data])
    for files in (bytearray(data), memoryview(data), [memoryview(data)], pure, [pure]):
        assert torch.equal(views.decode(files).pixels, plain.pixels)
    offsets = torch.stack([plain.offsets, plain.offsets], 1)[:, 0]
    again = views.Evaluation(8)(views.Packed(plain.pixels, offsets, plain.sizes))
    assert torch.equal(again, views.Evaluation(8)(plain))


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (None, TypeError, "files must be paths or bytes, one or several, got NoneType"),
        (3, TypeError, "files must be paths or bytes, one or several, got int"),
        ("a\0b.jpg", BadImage, r"'a\\x00b.jpg' cannot be read: embedded null byte"),
    ],
)
def test_what_is_no_file(files, error, message):
    for call in (views.decode, views.SimCLR(8).load):
        with pytest.raises(error, match=message):
            call(files)


@pytest.mark.parametrize("bands", [4, 5])
def test_other_than_three_bands_are_refused_by_name(bands):
    tifffile, buffer = pytest.importorskip("tifffile"), io.BytesIO()
    pixels = np.zeros((20, 30, bands), np.uint8)
    tifffile.imwrite(buffer, pixels, photometric="minisblack", planarconfig="contig")
    for call in (views.decode, views.SimCLR(8).load):
        with pytest.raises(BadImage, match=rf"files\[1\] must have 3 bands, got {bands}"):
            call([FILES["png"], buffer.getvalue()])
