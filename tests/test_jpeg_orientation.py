"""Photographs as cameras turn them: what Pillow makes of them, without Pillow."""

import io
import struct

import numpy as np
import pytest
import torch

for name in ("PIL", "simplejpeg"):
    pytest.importorskip(name)

import simplejpeg  # noqa: E402
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from fastcl.data import BadImage, decoding  # noqa: E402
from fastcl.data.orientation import orientation, stored_box, turn  # noqa: E402

TAG, SHORT, LONG = 0x0112, 3, 4
MAKER = (0x010F, 2, 4, b"abc\0")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8).repeat(6, 0).repeat(6, 1)
PLAIN = simplejpeg.encode_jpeg(PIXELS, 90)


def tag(value, kind=SHORT, count=1, order="<"):
    return TAG, kind, count, struct.pack(order + ("I" if kind == LONG else "HH"[:count]), value)


def exif(*entries, order="<", head=None, start=8, more=0):
    """An EXIF segment: `more` entries are promised that are not there."""
    head = head or {"<": b"II*\0", ">": b"MM\0*"}[order]
    body = head + struct.pack(order + "I", start) + bytes(start - 8)
    body += struct.pack(order + "H", len(entries) + more)
    for key, kind, count, value in entries:
        body += struct.pack(order + "HHI", key, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0" + body + bytes(4)


def xmp(value, form='tiff:Orientation="{}"'):
    return b"http://ns.adobe.com/xap/1.0/\0<x " + form.format(value).encode() + b"/>"


def jpeg(*segments, marker=0xE1):
    """The photograph with such segments after its start."""
    parts = b"".join(struct.pack(">BBH", 0xFF, marker, len(x) + 2) + x for x in segments)
    return PLAIN[:2] + parts + PLAIN[2:]


def outcome(data):
    """Pixels, or None."""
    try:
        return decoding.decode_pixels(data, "it")
    except BadImage:
        return None


def pillow(data):
    kept, decoding.simplejpeg = decoding.simplejpeg, None
    try:
        return outcome(data)
    finally:
        decoding.simplejpeg = kept


def alike(a, b):
    return a is b is None or (a is not None and b is not None and np.array_equal(a, b))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("others", [(), (MAKER,)])
def test_turned_photographs_need_no_pillow(monkeypatch, order, value, others):
    data = jpeg(exif(*others, tag(value, order=order), MAKER, order=order))
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    monkeypatch.setattr(Image, "open", None)
    assert orientation(data) == value
    assert np.array_equal(decoding.decode_pixels(data, "it"), expected)
    head = decoding.jpeg_head(data)
    assert head.sides == expected.shape[:2]
    for box in ((0, 1, 0, 1), (3, 17, 9, 20), (2, expected.shape[0], 5, expected.shape[1])):
        into = np.zeros(expected.shape, np.uint8)
        assert np.shares_memory(decoding.decode_jpeg(data, head, into, box), into)
        top, bottom, left, right = box
        assert (into[top:bottom, left:right] == expected[top:bottom, left:right]).all()


UPRIGHT = {
    "no EXIF": PLAIN, "EXIF that does not say": jpeg(exif(MAKER)),
    "no entries": jpeg(exif()), "0": jpeg(exif(tag(0))), "9": jpeg(exif(tag(9))),
    "65535": jpeg(exif(tag(65535))), "the word in a comment": jpeg(exif(tag(6)), marker=0xFE),
    "XMP against EXIF": jpeg(exif(tag(1)), xmp(6)), "later": jpeg(b"else", exif(tag(1), start=80)),
}  # fmt: skip
FOR_PILLOW = {
    "XMP alone": jpeg(xmp(6)), "XMP as an element": jpeg(xmp(8, "<tiff:Orientation>{}</")),
    "XMP beside EXIF that does not say": jpeg(exif(MAKER), xmp(3)),
    "two segments": jpeg(exif(tag(6)), exif(tag(3))), "twice": jpeg(exif(tag(6), tag(3))),
    "a value of 8 bytes outside": jpeg(exif((0x0100, 16, 1, b"\0\0\1\0"), tag(6))),
    "a long number": jpeg(exif(tag(6, LONG))), "cut off": jpeg(exif(tag(6))[:18]),
    "entries that are not there": jpeg(exif(tag(6), more=9)), "empty": jpeg(b"Exif\0\0"),
    "another head": jpeg(exif(tag(6), head=b"II+\0")),
    "fill bytes": PLAIN[:2] + b"\xff" + jpeg(exif(tag(6)))[2:],
}  # fmt: skip


@pytest.mark.parametrize("name", UPRIGHT)
def test_upright_photographs_need_no_pillow(monkeypatch, name):
    assert orientation(UPRIGHT[name]) == 1
    expected = pillow(UPRIGHT[name])
    monkeypatch.setattr(Image, "open", None)
    assert np.array_equal(outcome(UPRIGHT[name]), expected)


@pytest.mark.parametrize("name", FOR_PILLOW)
def test_what_is_unusual_is_for_pillow(name):
    assert orientation(FOR_PILLOW[name]) is None and decoding.jpeg_head(FOR_PILLOW[name]) is None
    assert alike(outcome(FOR_PILLOW[name]), pillow(FOR_PILLOW[name]))


ICC = b"ICC_PROFILE\0\1\1\xff\xda"


def test_what_looks_like_pixels_before_exif_is_none():
    for segments in ((ICC, exif(tag(6))), (exif(tag(6)), ICC), (ICC, b"Exif", exif(MAKER, tag(8)))):
        data = jpeg(*segments)
        assert orientation(data) in (6, 8) and alike(outcome(data), pillow(data))
    assert alike(outcome(jpeg(ICC, xmp(6))), pillow(jpeg(ICC, xmp(6))))


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_bytes_are_an_image(kind):
    for data in (PLAIN, jpeg(exif(tag(6))), jpeg(exif(tag(1)))):
        assert torch.equal(decoding.decode(kind(data), "it"), decoding.decode(data, "it"))


def test_entries_that_pillow_cannot_write_again_do_not_matter():
    data = jpeg(exif((0x0100, 2, 4, b"abc\0"), tag(6)))
    for found in (outcome(data), pillow(data)):
        assert (found == np.rot90(decoding.decode_pixels(PLAIN, "it"), -1)).all()


SEGMENTS = exif(MAKER, tag(6), MAKER), exif(tag(8, order=">"), order=">"), xmp(3)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEGMENTS), st.booleans(),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
)  # fmt: skip
@example(SEGMENTS[0], False, [(10, 255)])
def test_damage_to_what_says_so_changes_nothing(segment, before, damage):
    segment = bytearray(segment)
    for at, value in damage:
        segment[at % len(segment)] = value
    data = jpeg(b"else", bytes(segment)) if before else jpeg(bytes(segment), b"else")
    assert alike(outcome(data), pillow(data))


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_box_is_stored_where_it_is_taken_from(value, height, width, data):
    stored = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    seen = np.zeros((width, height, 3) if value >= 5 else stored.shape, np.uint8)
    turn(stored, seen, (0, seen.shape[0], 0, seen.shape[1]), value)
    top, left = (data.draw(st.integers(0, side - 1)) for side in seen.shape[:2])
    bottom = data.draw(st.integers(top + 1, seen.shape[0]))
    right = data.draw(st.integers(left + 1, seen.shape[1]))
    a, b, c, d = stored_box((top, bottom, left, right), seen.shape[:2], value)
    part, found = np.zeros_like(stored), np.zeros_like(seen)
    part[a:b, c:d] = stored[a:b, c:d]
    turn(part, found, (top, bottom, left, right), value)
    assert (found[top:bottom, left:right] == seen[top:bottom, left:right]).all()
    assert (b - a) * (d - c) == (bottom - top) * (right - left)
