"""Sources of pixels: arrays on the disk, and datasets of PyTorch."""

import io

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from fastcl.data import Arrays, Mapped, decode, open_images  # noqa: E402


def png(level):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def level(source, i):
    """The level of red that image i was drawn with."""
    found = source.read(i)
    return int(decode(found, "it")[0, 0, 0] if isinstance(found, bytes) else found[0, 0, 0])


def test_an_npy_is_mapped(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 5), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    source = open_images(tmp_path / "a.npy")["train"]
    assert isinstance(source.pixels.base, np.memmap) and len(source) == 9
    assert (source.read(4) == pixels[4].transpose(2, 0, 1)).all()
    np.save(tmp_path / "b.npy", pixels.astype(np.uint32))
    with pytest.raises(ValueError, match="b.npy' must be uint8 or uint16, got uint32"):
        open_images(tmp_path / "b.npy")


def test_16_bits_are_brought_to_8(tmp_path):
    levels = np.arange(2**16, dtype=np.uint16).reshape(4, 2, 2, 64, 64)[:, :, 0]
    expected = np.floor(levels / 257 + 0.5)
    np.save(tmp_path / "a.npy", levels)
    np.savez(tmp_path / "a.npz", images=levels)
    mapped, kept = (open_images(tmp_path / f"a.{kind}")["train"] for kind in ("npy", "npz"))
    assert isinstance(mapped.pixels, np.memmap) and kept.pixels.dtype == np.uint8
    assert (mapped.read(3) == expected[3]).all() and (kept.pixels == expected).all()
    assert (mapped.take(np.array([2, 0])) == expected[[2, 0]]).all()


def test_what_does_not_fit_into_memory_is_refused_with_both_numbers(tmp_path, monkeypatch):
    np.savez_compressed(
        tmp_path / "a.npz", images=np.zeros((100, 3, 50, 50), np.uint8), labels=np.arange(100)
    )
    data = np.frombuffer(png(7) * 9, np.uint8)
    offsets = len(png(7)) * np.arange(10)
    np.savez(tmp_path / "jpeg.npz", train_jpeg=data, train_offsets=offsets)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("fastcl.data.arrays.available", lambda: 750_799)
    told = "a.npz' take 751 kB and do not fit into the 751 kB of memory that are free: an .npy"
    with pytest.raises(ValueError, match=told):
        open_images(tmp_path / "a.npz")
    monkeypatch.setattr("fastcl.data.arrays.available", lambda: 750_800)
    assert len(open_images(tmp_path / "a.npz")["train"]) == 100
    monkeypatch.setattr("fastcl.data.jpeg.available", lambda: 809)
    told = "the 9 images in .*jpeg.npz' take 810 B as pixels and do not fit into the 809 B"
    with pytest.raises(ValueError, match=told):
        open_images(tmp_path / "jpeg.npz")


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((4, 8, 8, 5), 5), ((4, 5, 8, 8), 5), ((4, 8, 8, 8), 8), ((4, 3, 8, 8), 3), ((4, 8, 8), 1)],
)
def test_channels_of_arrays(tmp_path, shape, channels):
    np.savez(tmp_path / "a.npz", images=np.zeros(shape, np.uint8))
    assert open_images(tmp_path / "a.npz")["train"].pixels.shape == (4, channels, 8, 8)


class Rows(torch.utils.data.Dataset):
    classes = ["cat", "dog"]

    def __init__(self, kind):
        self.kind, self.targets = kind, [0, 1, 1]

    def __len__(self):
        return 3

    def __getitem__(self, i):
        pixels = np.full((5, 6, 3), 40 * i, np.uint8)
        return {
            "Pillow": (Image.fromarray(pixels), 1), "array": pixels, "bytes": (png(40 * i), 0),
            "tensor": [torch.from_numpy(pixels).permute(2, 0, 1)], "grey": pixels[:, :, 0],
            "floats": torch.rand(3, 4, 4),
        }[self.kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["Pillow", "array", "bytes", "tensor", "grey"])
def test_datasets_of_pytorch(kind):
    source = Mapped(Rows(kind))
    assert [level(source, i) for i in range(3)] == [0, 40, 80]
    assert source.labels.tolist() == [0, 1, 1] and source.classes == ("cat", "dog")
    assert source.name(2) == "item 2 of Rows"
    if kind != "bytes":
        assert source.read(0).shape == (1 if kind == "grey" else 3, 5, 6)


def test_what_is_no_image_of_a_dataset_is_named():
    with pytest.raises(TypeError, match=r"item 1 must be.*got Tensor of torch.float32 \[3, 4, 4\]"):
        Mapped(Rows("floats")).read(1)


def test_arrays_are_copied_out():
    pixels = np.zeros((2, 1, 4, 4), np.uint8)
    Arrays(pixels, None).read(0)[:] = 9
    assert pixels.max() == 0


def test_a_damaged_header_is_an_error_with_the_name_of_the_file(tmp_path):
    """Where NumPy's own parser of it fails, and what it then says."""
    pixels = np.zeros((2, 3, 8, 8), np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([None, 1], dtype=object))
    for name in ("a.npy", "a.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(b"'descr'", b"((((((("))
        with pytest.raises(ValueError, match=f"{name}'"):
            open_images(tmp_path / name)
    np.savez(tmp_path / "b.npz", images=pixels, labels=np.array([None, 1], dtype=object))
    with pytest.raises(ValueError, match="b.npz' is damaged: labels: Object arrays"):
        open_images(tmp_path / "b.npz")


def test_files_end_to_end_and_their_offsets_are_vectors_of_numbers(tmp_path):
    file = np.frombuffer(png(3), np.uint8)
    for jpeg, offsets in ((file[None], [0, len(file)]), (file.astype(int), [0, len(file)]),
                          (file, [[0], [len(file)]]), (file, [0.5, 9.0])):  # fmt: skip
        np.savez(tmp_path / "c.npz", train_jpeg=jpeg, train_offsets=np.array(offsets))
        with pytest.raises(ValueError, match="must be uint8 .bytes. and train_offsets in .*c.npz"):
            open_images(tmp_path / "c.npz")
