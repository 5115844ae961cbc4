"""Of a JPEG file, what views show is decoded: the pixels are those of the whole."""

import io

import numpy as np
import pytest
import torch

for name in ("PIL", "simplejpeg", "fastcl._jpeg"):
    pytest.importorskip(name, reason="needs a build beside libjpeg-turbo", exc_type=ImportError)

import simplejpeg  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from PIL import Image  # noqa: E402

from fastcl import _jpeg, views  # noqa: E402
from fastcl.data import BadImage, Folder, Loader, Order, decoding  # noqa: E402

HIDDEN = 7  # what lies where nothing was decoded


def encoded(pixels, mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def noise(height, width, seed=0):
    shape = height // 3 + 1, width // 3 + 1, 3
    small = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(3, 0).repeat(3, 1)[:height, :width])


def whole(data):
    return simplejpeg.decode_jpeg(data, "RGB")


def boxed(data, box, shape=None):
    """What one more call leaves of memory that held nothing of the image; None: it was refused."""
    image = np.full((*(shape or whole(data).shape[:2]), 3), HIDDEN, np.uint8)
    return image if _jpeg.decode_box(data, image, *box) else None


def files(height, width, seed, quality):
    pixels = noise(height, width, seed)
    yield encoded(pixels, "L", quality=quality)
    yield encoded(pixels, quality=quality, keep_rgb=True)
    yield encoded(pixels, quality=quality, restart_marker_blocks=1)
    for sampling in ("444", "422", "420", "440", "411"):
        yield simplejpeg.encode_jpeg(pixels, quality, colorsubsampling=sampling)


@st.composite
def sides_and_boxes(draw):
    height, width = (draw(st.integers(1, 120)) for _ in "hw")
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    return height, width, (top, bottom, left, right)


@settings(max_examples=200, deadline=None)
@given(sides_and_boxes(), st.integers(0, 99), st.integers(5, 100))
def test_a_box_is_that_of_the_whole_image(sides, seed, quality):
    height, width, (top, bottom, left, right) = sides
    for data in files(height, width, seed, quality):
        found = boxed(data, (top, bottom, left, right))
        assert (found[top:bottom, left:right] == whole(data)[top:bottom, left:right]).all()


def test_what_no_view_shows_is_left_out():
    data = encoded(noise(160, 240), subsampling=2)
    found = boxed(data, (70, 90, 100, 130))
    top, bottom, left, right = 70, 90, 96, 132  # from a block of 16 on, and a neighbour of each end
    written = (found != HIDDEN).any(2)
    assert written[top:bottom].any(1).all() and not written[:top].any()
    assert not written[bottom:].any() and not written[:, :left].any()
    assert not written[:, right:].any()


DATA = encoded(noise(160, 240), quality=90)
MIDDLE = len(DATA) // 2
PROGRESSIVE = encoded(noise(160, 240), progressive=True)
SECOND = PROGRESSIVE.index(b"\xff\xda", PROGRESSIVE.index(b"\xff\xda") + 2)  # scan
SECOND = PROGRESSIVE.rindex(b"\xff\xc4", 0, SECOND)  # and its table
REFUSED = {
    "progressive": PROGRESSIVE, "its first scan alone": PROGRESSIVE[:SECOND] + b"\xff\xd9",
    "CMYK": encoded(noise(160, 240), "CMYK"),
    "truncated": DATA[:-200],
    "without its last byte": DATA[:-1],
    "of another height": encoded(noise(159, 240)), "of another width": encoded(noise(160, 239)),
    "no image": b"text", "empty": b"", "an end alone": b"\xff\xd9",
    "a head alone": DATA[:300] + b"\xff\xd9",
    "cut in the box": DATA[:MIDDLE] + b"\xff\xd9",
    "a marker below it": DATA[:-500] + b"\xff\xda\0\3\1" + DATA[-500:],
    "another start below it": DATA[:-500] + b"\xff\xd8" + DATA[-500:],
    "a byte more": DATA + b"\0", "an odd end": DATA[:-2] + b"\xff\xff\xd9",
    "a piece lost above it": DATA[: MIDDLE // 2] + b"\xff\xd0" + DATA[MIDDLE // 2 + 60 :],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_file_is_for_another_decoder(name, capfd):
    assert boxed(REFUSED[name], (50, 100, 10, 60), (160, 240)) is None
    assert capfd.readouterr() == ("", "")


def test_wrong_boxes_and_memory_are_errors():
    image = np.full((160, 240, 3), HIDDEN, np.uint8)
    for box in ((-1, 5, 0, 5), (5, 5, 0, 5), (0, 161, 0, 5), (0, 5, 7, 5), (0, 5, 0, 241),
                (0, 5, -3, 5), (2**62, 2**63 - 1, 0, 5)):  # fmt: skip
        with pytest.raises(ValueError, match="the box must be in the image"):
            _jpeg.decode_box(DATA, image, *box)
    for memory in (image[..., :2], image[:, ::2], image.astype(np.uint16), image[0],
                   image.transpose(1, 0, 2), image.view(np.int8), image.view(bool),
                   image.view("S1"), image.view([("x", "u1")]), image[::-1]):  # fmt: skip
        with pytest.raises(ValueError, match=r"image must be contiguous uint8 \[h, w, 3\]"):
            _jpeg.decode_box(DATA, memory, 0, 5, 0, 5)
    image.flags.writeable = False
    with pytest.raises((BufferError, ValueError), match="read-only|writable"):
        _jpeg.decode_box(DATA, image, 0, 5, 0, 5)
    with pytest.raises(TypeError):
        _jpeg.decode_box("text", image, 0, 5, 0, 5)
    assert (image == HIDDEN).all()


@pytest.fixture
def asked(monkeypatch):
    """Every box that was decoded."""
    boxes = []

    class Watched:
        @staticmethod
        def decode_box(data, image, *box):
            image[:] = HIDDEN
            boxes.append(box)
            return _jpeg.decode_box(data, image, *box)

    monkeypatch.setattr(decoding, "_jpeg", Watched)
    return boxes


PRESETS = {
    "two": views.SimCLR(24), "one": views.Supervised(20), "the middle": views.Evaluation(16),
    "crops": views.SwAV(24, 12, crops=3),
    "channels last": views.MoCoV2(16, memory_format=torch.channels_last, dtype=torch.bfloat16),
}  # fmt: skip
PHOTOGRAPHS = [
    encoded(noise(130 + 9 * i, 260 - 7 * i, i), subsampling=i % 3, exif=turned(i % 9))
    for i in range(12)
]


def flat(x):
    return list(x) if isinstance(x, list) else [x]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", PRESETS)
def test_loaded_views_show_nothing_around_their_boxes(asked, name, threads):
    make, chance = PRESETS[name], torch.Generator()
    found = make.load(PHOTOGRAPHS, threads=threads, generator=chance.manual_seed(3))
    expected = make(views.decode(PHOTOGRAPHS), chance.manual_seed(3))
    assert all(torch.equal(*pair) for pair in zip(flat(found), flat(expected), strict=True))
    sides = [decoding.jpeg_head(data).sides for data in PHOTOGRAPHS]
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in asked]
    assert len(areas) == 12 and sum(areas) < 0.95 * sum(h * w for h, w in sides)


@pytest.mark.parametrize("name", PRESETS)
def test_so_do_those_of_a_loader(tmp_path, asked, name):
    for i, data in enumerate(PHOTOGRAPHS):
        (tmp_path / f"{i:02}.jpg").write_bytes(data)
    make, source = PRESETS[name], Folder(tmp_path)
    loader = Loader(source, Order(12, 6, seed=1), make, threads=2, channels=3)
    for batch in loader.batches(0, 0, 2):
        images = [
            torch.from_numpy(decoding.decode_pixels(PHOTOGRAPHS[i], "it").transpose(2, 0, 1))
            for i in batch.index
        ]
        expected = make(images, loader._generator(batch.epoch, batch.step))
        pairs = zip(flat(batch.images), flat(expected), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    assert len(asked) == 24


def test_views_that_name_no_boxes_get_whole_images(tmp_path, asked):
    make, seen = views.SimCLR(24), []

    class Whole:
        chances, places, drawn, joined = make.chances, make.places, make.drawn, make.joined

        @staticmethod
        def write(image, drawn, k, out, place):
            seen.append(image.clone())
            make.write(image, drawn, k, out, place)

    for i, data in enumerate(PHOTOGRAPHS[:4]):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    for batch in Loader(Folder(tmp_path), Order(4, 4, seed=0), Whole(), threads=1).batches():
        for image, i in zip(seen, batch.index, strict=True):
            assert (image.numpy() == decoding.decode_pixels(PHOTOGRAPHS[i], "it")).all()
    assert asked == []


def test_damaged_files_are_what_they_are_whole():
    """Below the box no row is read; a file that ends early is an error wherever its views are."""
    damaged = DATA[: -len(DATA) // 8] + b"\xff\xd9"
    assert boxed(damaged, (0, 160, 0, 240), (160, 240)) is None
    found = boxed(damaged, (0, 40, 30, 90), (160, 240))
    expected = decoding.decode_pixels(damaged, "it")
    assert (found[:40, 30:90] == expected[:40, 30:90]).all()
    torch.manual_seed(0)
    for _ in range(8):
        with pytest.raises(BadImage, match=r"files\[0\] is no readable image: image file is trun"):
            views.Supervised(8).load(DATA[: -len(DATA) // 8])
