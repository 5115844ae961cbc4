"""Decoded images are what a viewer shows, whatever the file and whatever is installed."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from shared import SHARED

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from fastcl.data import BadImage, decode, decoding, read_image  # noqa: E402

CIFAR = SHARED / "data" / "cifar10" / "cifar10-jpeg.npz"
ORIENTATION = 0x0112


def photograph(height=37, width=53):
    """Smooth colour with an asymmetry, so that a turned image is another one."""
    rows, columns = np.mgrid[:height, :width]
    channels = [x * 255 // max(x.max(), 1) for x in (rows, columns, rows * columns)]
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(data):
    found = decode(data, "it")
    pixels = found.permute(1, 2, 0)
    assert pixels.dtype == torch.uint8 and pixels.shape[2] == 3 and pixels.is_contiguous()
    return pixels.numpy()


@pytest.fixture(params=["simplejpeg", "Pillow alone"])
def decoder(request, monkeypatch):
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    return request.param


JPEGS = {
    "4:4:4": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True}, "coarse": {"quality": 20}, "rgb": {"keep_rgb": True},
    "restarts": {"restart_marker_rows": 1},
}  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (64, 48)])
def test_jpeg_is_what_pillow_makes_of_it_bit_by_bit(decoder, mode, options, shape):
    data = encoded(photograph(*shape).convert(mode), "JPEG", **JPEGS[options])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (seen(data) == expected).all()


@pytest.mark.parametrize("sampling", [0x13, 0x14, 0x23, 0x24, 0x31, 0x42])
def test_samplings_without_a_name_are_decoded_by_pillow(sampling):
    """Of 4:4:1 simplejpeg's header raises what no other file does."""
    simplejpeg = pytest.importorskip("simplejpeg")
    pixels = np.ascontiguousarray(photograph(64, 64))
    data = bytearray(simplejpeg.encode_jpeg(pixels, colorsubsampling="440"))
    data[data.index(b"\xff\xc0") + 11] = sampling
    assert (seen(bytes(data)) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@pytest.mark.skipif(not CIFAR.exists(), reason="needs ../shared/data/cifar10")
def test_photographs_are_bit_equal_to_pillow():
    pytest.importorskip("simplejpeg")
    with np.load(CIFAR) as whole:
        offsets = whole["train_offsets"][:301]
        data = whole["train_jpeg"][: offsets[-1]].tobytes()
    for a, b in zip(offsets[:-1], offsets[1:], strict=True):
        file = data[a:b]
        assert (seen(file) == np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_upright(decoder, kind, orientation):
    upright = photograph()
    turns = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }  # how the camera held it: what a viewer undoes  # fmt: skip
    stored = upright
    for turn in turns.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    found = seen(encoded(stored, kind, exif=exif, **lossless)).astype(int)
    assert found.shape == (37, 53, 3)
    assert np.abs(found - np.asarray(upright)).max() <= (40 if kind == "JPEG" else 0)


def png(pixels, colour):
    """A PNG of 16 bits by hand: Pillow writes only grey ones."""
    height, width = pixels.shape[:2]

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def ramp(channels):
    values = np.linspace(0, 65535, 12 * 9 * channels).round().astype(np.uint16)
    return values.reshape(12, 9, channels)


@pytest.mark.parametrize("kind", ["png", "PNG", "TIFF"])
def test_grey_of_16_bits_keeps_its_levels(kind):
    grey = ramp(1)[:, :, 0]
    data = png(grey[:, :, None], 0) if kind == "png" else encoded(Image.fromarray(grey), kind)
    found = seen(data).astype(int)
    assert np.abs(found - (grey / 257)[:, :, None]).max() <= 0.5 + 1e-9
    assert len(np.unique(found)) > 100


def test_colour_and_alpha_of_16_bits():
    pixels = ramp(3)
    assert np.abs(seen(png(pixels, 2)).astype(int) - pixels / 257).max() <= 1
    pixels = ramp(4)
    alpha = pixels[:, :, 3:] / 65535
    expected = 255 + (pixels[:, :, :3] / 257 - 255) * alpha
    assert np.abs(seen(png(pixels, 6)).astype(int) - expected).max() <= 2


def test_fractions_and_levels_without_a_white():
    fractions = np.linspace(0, 1, 108, dtype=np.float32).reshape(12, 9)
    found = seen(encoded(Image.fromarray(fractions), "TIFF")).astype(int)
    assert np.abs(found - fractions[:, :, None] * 255).max() <= 0.5 + 1e-4
    for levels in (fractions * 3, (fractions * 1e6).astype(np.int32), fractions - 0.5):
        with pytest.raises(BadImage, match="it is no readable image: its levels must be from"):
            seen(encoded(Image.fromarray(levels), "TIFF"))


@pytest.mark.parametrize("bands", [3, 5])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bands_of_a_tiff(bands, planes, dtype):
    """What Pillow does not read has all its bands, brought to 8 bits."""
    tifffile = pytest.importorskip("tifffile")
    deep = ramp(bands)
    levels = deep / 65535
    written = (deep // 257 if dtype == np.uint8 else deep if dtype == np.uint16 else levels).astype(
        dtype
    )
    buffer = io.BytesIO()
    pixels = written if planes == "contig" else written.transpose(2, 0, 1)
    kind = "rgb" if bands == 3 else "minisblack"
    tifffile.imwrite(buffer, pixels, planarconfig=planes, photometric=kind)
    pixels = decode(buffer.getvalue(), "it").permute(1, 2, 0)
    assert pixels.shape == (12, 9, bands) and pixels.is_contiguous()
    # Where Pillow reads it, 16 bits are cut down to 8, as those of a PNG in colour are.
    cut = dtype == np.uint8 or (dtype == np.uint16 and bands == 3)
    assert np.abs(pixels.numpy() - 255 * levels).max() <= (1 if cut else 0.5 + 1e-3)
    with pytest.raises(BadImage, match="it is no readable image: "):
        seen(buffer.getvalue()[:200])


def test_a_tiff_of_other_bands_names_what_reads_it(monkeypatch):
    monkeypatch.setattr("fastcl.data.decoding.find_spec", lambda name: None)
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    data = encoded(image, "TIFF")
    tag = data.index(struct.pack("<HHII", 258, 3, 1, 8))  # bits of a sample: 8 becomes 24
    data = data[:tag] + struct.pack("<HHII", 258, 3, 1, 24) + data[tag + 12 :]
    with pytest.raises(BadImage, match="needs tifffile: pip install tifffile"):
        seen(data)


def test_what_pillow_does_not_read_is_said_once(tmp_path):
    """Its log would be a line for every such image of every epoch."""
    data = encoded(Image.fromarray(np.zeros((4, 4, 3), np.uint8)), "TIFF")
    tag = data.index(struct.pack("<HHII", 277, 3, 1, 3))  # samples of a pixel
    data = data[:tag] + struct.pack("<HHII", 277, 3, 1, 7) + data[tag + 12 :]
    (tmp_path / "bands.tif").write_bytes(data)
    program = """
import sys
from fastcl.data import BadImage, read_image
try:
    read_image(sys.argv[1])
except BadImage as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "bands.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "bands.tif' is no readable image: " in done.stdout and done.stderr == ""


def see_through(kind):
    """Red that is opaque on the left and absent on the right, and half there in the middle."""
    image = Image.new("RGBA", (6, 4), (255, 0, 0, 255))
    for x, alpha in ((2, 128), (3, 128), (4, 0), (5, 0)):
        for y in range(4):
            image.putpixel((x, y), (255, 0, 0, alpha))
    if kind == "palette":
        image = Image.new("P", (6, 4), 0)
        image.putpalette([255, 0, 0, 0, 0, 0])
        image.paste(1, (4, 0, 6, 4))
        return encoded(image, "PNG", transparency=1)
    if kind == "colour key":
        image = Image.new("RGB", (6, 4), (255, 0, 0))
        image.paste((0, 0, 0), (4, 0, 6, 4))
        return encoded(image, "PNG", transparency=(0, 0, 0))
    return encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "palette", "colour key"])
def test_what_is_transparent_lies_on_white(kind):
    found = seen(see_through(kind))
    assert (found[:, :2] == (255, 0, 0)).all() and (found[:, 4:] == 255).all()
    if kind in ("PNG", "WEBP", "TIFF"):
        assert np.abs(found[:, 2:4].astype(int) - (255, 127, 127)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB"])
def test_every_container_and_mode_is_colour(kind, mode):
    image = photograph().convert(mode)
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert (seen(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames(kind):
    frames = [Image.new("RGB", (8, 6), c) for c in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(seen(data).astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_file_is_named_in_one_line(decoder, kind, share):
    data = encoded(photograph(64, 48), kind)
    with pytest.raises(BadImage, match="^some.file is no readable image: .+") as found:
        decode(data[: int(len(data) * share)], "some.file")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "data", [b"no image at all", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg>"]
)
def test_what_is_no_image_is_named(decoder, data):
    with pytest.raises(BadImage, match="^x.jpg is no readable image: .+"):
        decode(data, "x.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_bomb_is_named_before_it_is_decoded(decoder, kind, monkeypatch):
    data = encoded(Image.new("RGB", (40, 50)), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with pytest.raises(BadImage, match="2000 pixels.*exceeds limit of 1800"):
        decode(data, "bomb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(data, "bomb").shape == (3, 50, 40)


def test_files(tmp_path):
    path = tmp_path / "a.png"
    photograph().save(path)
    assert (read_image(path).permute(1, 2, 0).numpy() == np.asarray(photograph())).all()
    with pytest.raises(BadImage, match="b.png' cannot be read: No such file"):
        read_image(tmp_path / "b.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(BadImage, match="text.png' is no readable image: it begins with b'text'"):
        read_image(tmp_path / "text.png")
