"""Labels: any integers, a column of them, or -1 for an image without one; damaged files."""

import numpy as np
import pytest
import torch
from shared import SHARED

for name in ("sklearn", "PIL"):
    pytest.importorskip(name)


from fastcl.pretrain import inputs  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402

CIFAR = SHARED / "data" / "cifar10" / "cifar10-jpeg.npz"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def labelled_npz(path, labels, **more):
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.asarray(labels), **more)
    return load_images(str(path))


def test_labels_are_as_many_as_there_are_and_not_as_large(tmp_path):
    images = labelled_npz(tmp_path / "large.npz", [2_000_000_000, 7, 7, 9] * 5)
    assert images.classes == ("7", "9", "2000000000")
    assert sorted(torch.cat([images.train_labels, images.test_labels]).unique()) == [0, 1, 2]
    assert labelled_npz(tmp_path / "u.npz", np.full(9, 2**40, np.uint64)).classes == (str(2**40),)


def test_a_column_of_labels_is_a_vector(tmp_path):
    vector = labelled_npz(tmp_path / "v.npz", np.arange(10, dtype=np.uint8) % 3)
    column = labelled_npz(tmp_path / "c.npz", (np.arange(10, dtype=np.uint8) % 3)[:, None])
    assert torch.equal(vector.train_labels, column.train_labels)
    with pytest.raises(ValueError, match=r"vector of integers, got int64 of shape \[8, 2\]"):
        labelled_npz(tmp_path / "two.npz", np.zeros((10, 2), np.int64))
    with pytest.raises(ValueError, match="labels must have 10 entries, got one number"):
        pixels = np.zeros((10, 8, 8), np.uint8)
        np.savez(tmp_path / "one.npz", images=pixels, labels=np.int64(3))
        load_images(str(tmp_path / "one.npz"))


def test_images_without_a_label_stay_and_are_left_out_of_what_needs_one(tmp_path):
    images = labelled_npz(tmp_path / "part.npz", [-1, 4, 6] * 10)
    assert images.classes == ("4", "6") and images.labelled and len(images.train) == 24
    known = images.with_labels()
    assert len(known.train) == int((images.train_labels >= 0).sum()) < 24
    assert known.train_labels.min() == 0 and known.test_labels.min() >= 0
    assert known.with_labels() is known
    assert not labelled_npz(tmp_path / "none.npz", [-1] * 10).labelled
    with pytest.raises(ValueError, match="or -1 for an image without one, got -2"):
        labelled_npz(tmp_path / "less.npz", [0, -2] * 10)
    with pytest.raises(ValueError, match=f"got {2**63}"):
        labelled_npz(tmp_path / "more.npz", np.full(9, 2**63, np.uint64))


class Same:
    """Views that are the images."""

    memory_format = torch.contiguous_format

    def __call__(self, images, count):
        return count * [images.float()]


def test_sup_con_contrasts_an_image_without_a_label_with_its_own_view_alone():
    batch = inputs.Batch(torch.zeros(4, 1, 8, 8), torch.tensor([5, 7, 2, 9]),
                         torch.tensor([-1, 1, -1, 1]))  # fmt: skip
    *_, labels = inputs.two_views_and_labels(Same(), batch)
    assert len(labels.unique()) == 3 and labels[1] == labels[3] == 1


def test_class_names_must_reach_every_label(tmp_path):
    names = {"class_names": np.array(["a", "b"])}
    assert labelled_npz(tmp_path / "a.npz", [0, 1] * 5, **names).classes == ("a", "b")
    with pytest.raises(ValueError, match="there are 2 names, and the highest label is 2"):
        labelled_npz(tmp_path / "b.npz", [0, 2] * 5, **names)
    with pytest.raises(ValueError, match=r"class_names must be a vector, got shape \[1, 2\]"):
        labelled_npz(tmp_path / "c.npz", [0, 1] * 5, class_names=np.array([["a", "b"]]))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives_are_named(tmp_path, save):
    path = tmp_path / "set.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    save(path, images=pixels)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="set.npz' is damaged"):
        load_images(str(path))
