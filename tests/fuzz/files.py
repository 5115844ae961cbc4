"""Files that fastcl reads, whole and damaged: what they hold, or an error that names them.

Never another exception, a crash, more memory or time than a file of this size is worth, nor code
that runs. The files are small and of every kind that SECURITY.md lists; damage is what disks,
networks and people do: bits that turn, pieces that are lost, come twice or from elsewhere.
"""

import io
import json
import os
import pickle
import resource
import signal
import tarfile
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from fastcl import data, views
from fastcl.data.opening import open_images
from fastcl.pretrain import checkpoint, start, weights
from fastcl.pretrain.recipe import Config

SECONDS = 20  # a file of some kilobytes is read in milliseconds
MEMORY = 1 << 30  # as much again is an allocation that a damaged header asked for
RUN: list[str] = []  # what a pickle has executed


class Late(BaseException):
    """No error of a reader, which may catch any."""


def executed() -> None:
    RUN.append("a pickle was executed")


class Code:
    """Says so where it is unpickled."""

    def __reduce__(self):
        return executed, ()


def _image(kind: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "camera", 6
    return exif


def _npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _tar(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _written(write) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        write(path)
        return path.read_bytes()


def _checkpoint(value) -> bytes:
    return _written(lambda path: checkpoint.save_checkpoint(path, {"step": 3, "model": value}))


def _saved(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _weights() -> bytes:
    facts = weights.Facts("small", "cifar", 8, 3, [0.5] * 3, [0.2] * 3, 4)
    return _written(lambda path: weights.save_weights(path, {"a": torch.randn(3, 4)}, facts))


def _config() -> bytes:
    fields = Config.__dataclass_fields__
    texts = "method", "data", "backbone", "stem", "optimizer", "precision"
    return json.dumps({k: "x" if k in texts else 1 for k in fields}, indent=2).encode()


def _decode(path: Path) -> None:
    packed = views.decode(path)
    assert packed.pixels.numel() == 3 * int(packed.sizes.prod(1).sum())
    assert torch.equal(SHOWN.load(path), SHOWN(packed))


def _open(path: Path) -> None:
    for source in open_images(path).values():
        for i in {0, len(source) - 1}:
            pixels = source.read(i)
            if isinstance(pixels, bytes):
                data.decode(pixels, source.name(i))
        assert source.labels is None or len(source.labels) == len(source)


SHOWN = views.Evaluation(4)  # of an image, its middle
# Suffix: what reads it.
READERS = {
    ".img": _decode, ".npz": _open, ".npy": _open, ".tar": _open, ".pt": checkpoint.load_checkpoint,
    ".json": Config.load, ".safetensors": weights.read_weights, ".pth": start.read_state,
}  # fmt: skip


@cache
def whole() -> dict[str, list[bytes]]:
    """Files as they should be, and some of the same kind that hold code."""
    pixels, labels = np.arange(2 * 3 * 16, dtype=np.uint8).reshape(2, 3, 4, 4), np.arange(2)
    jpeg = _image("JPEG")
    code = np.array([Code()], dtype=object)
    cut = np.frombuffer(2 * jpeg, np.uint8), np.array([0, len(jpeg), 2 * len(jpeg)])
    return {
        ".img": [jpeg, _image("JPEG", progressive=True), _image("JPEG", exif=_turned()),
                 _image("PNG"), _image("WEBP"),
                 _image("GIF"), _image("TIFF"), _image("BMP"), _image("PPM")],
        ".npz": [_npz(images=pixels, labels=labels, class_names=np.array(["a", "b"])),
                 _npz(train_images=pixels, test_images=pixels, train_labels=labels),
                 _npz(train_jpeg=cut[0], train_offsets=cut[1], train_labels=labels),
                 _npz(images=code)],
        ".npy": [_npy(pixels), _npy(code)],
        ".tar": [_tar(("a/1.jpg", jpeg), ("a/1.cls", b"3"), ("a/2.png", _image("PNG")),
                      ("a/2.json", b'{"label": 5}')), _tar(("1.jpg", jpeg), ("1.json", b"[" * 9))],
        ".pt": [_checkpoint(torch.randn(5)), _checkpoint([Code()]), pickle.dumps(Code())],
        ".pth": [_saved({"a": torch.randn(4)}), _saved({"a": Code()})],
        ".json": [_config()],
        ".safetensors": [_weights()],
    }  # fmt: skip


def damaged(rng, content: bytes, other: bytes) -> bytes:
    """One to three accidents."""
    found = bytearray(content)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        a, b = sorted(rng.randrange(len(found) + 1) for _ in "12")
        b = min(b, a + rng.choice((1, 4, 64, len(found))))
        c = rng.randrange(len(other) + 1)
        way = rng.choice(("flip", "flip", "number", "cut", "lose", "twice", "splice", "nest"))
        if way == "flip" and found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        elif way == "number":  # where a length may be
            found[a : a + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"9999"))
        elif way == "cut":
            del found[a:]
        elif way == "lose":
            del found[a:b]
        elif way == "twice":
            found[a:a] = found[a:b]
        elif way == "splice":
            found[a:b] = other[c : c + b - a]
        elif way == "nest":
            found[a:a] = rng.choice((b"[", b"(", b'{"a":')) * rng.choice((3, 100_000))
    return bytes(found)


@contextmanager
def _limits():
    """An alarm, and no more address space than is in use and MEMORY."""

    def late(*_):
        raise Late

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def read(suffix: str, content: bytes) -> None:
    """AssertionError where a file is read in no way that is promised."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{suffix}"
        path.write_bytes(content)
        RUN.clear()
        with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": f"{folder}/cache"}), _limits():
            try:
                READERS[suffix](path)
            except Late:
                raise AssertionError(f"it takes more than {SECONDS} s") from None
            except (ValueError, OSError) as error:
                named = "damaged" in str(error)
                assert named, f"an error without the name of the file: {error}"
            except Exception as error:
                raise AssertionError(f"{type(error).__name__} of a reader: {error}") from error
    assert not RUN, RUN[0]


def check(rng, suffix: str) -> None:
    files = whole()
    content, other = rng.choice(files[suffix]), rng.choice(files[rng.choice(list(files))])
    read(suffix, damaged(rng, content, other))
