"""Views that the threads which decode make, a few images at a time, are those of the batch."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

for name in ("PIL", "spdl.pipeline"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402

from fastcl import views  # noqa: E402
from fastcl._buffers import Buffers  # noqa: E402
from fastcl.data import BadImage, Folder, Loader, Order, PartViews, chunks  # noqa: E402
from fastcl.data.square import read_pixels  # noqa: E402
from fastcl.data.threads import alone  # noqa: E402

PRESETS = {
    "two": views.SimCLR(24),
    "channels last": views.MoCoV2(16, memory_format=torch.channels_last, dtype=torch.bfloat16),
    "one": views.Supervised(20),
    "crops": views.SwAV(24, 12, crops=3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise of 41 different sizes."""
    root = tmp_path_factory.mktemp("set")
    random = np.random.default_rng(1)
    for i in range(41):
        pixels = random.integers(0, 256, (20 + i, 61 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02}.{'png' if i % 4 else 'jpg'}", quality=95)
    return root


def flat(x):
    return list(x) if isinstance(x, list) else [x]


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("name", PRESETS)
def test_they_are_the_views_of_the_whole_batch(folder, monkeypatch, name, threads):
    """Of the images as they are, by the generator of their step, for any cut into parts."""
    monkeypatch.setattr(chunks, "HELD", 7000)  # one image, or two small ones
    source, order, made = Folder(folder), Order(41, 20, seed=1), PRESETS[name]
    assert isinstance(made, PartViews)
    loader = Loader(source, order, made, threads=threads)
    found = list(loader.batches(0, 1, 2))  # held all at once: no memory is given twice
    assert [(b.epoch, b.step) for b in found] == [(0, 1), (1, 0), (1, 1)]
    for batch in found:
        images = [torch.from_numpy(read_pixels(source, int(i))) for i in batch.index]
        expected = made(images, loader._generator(batch.epoch, batch.step))
        for x, y in zip(flat(batch.images), flat(expected), strict=True):
            assert x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y)
            assert x.stride()[-3:] == y.stride()[-3:]
    assert not torch.equal(flat(found[0].images)[0], flat(found[2].images)[0])


def test_the_stages_share_the_time(folder):
    loader = Loader(Folder(folder), Order(41, 20, seed=0), views.SimCLR(64), threads=2)
    for _ in loader.batches():
        pass
    reports = loader.reports()
    assert all(0 <= report.busy <= 1 and report.seconds > 0 for report in
               (reports[name] for name in ("read", "decode", "views")))  # fmt: skip
    assert sum(reports[name].seconds for name in ("decode", "views")) <= 2 * loader.elapsed


class Mixed:
    """Drawings, and what a folder would hold."""

    labels, classes = None, ()

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, i):
        return self.images[i]

    def name(self, i):
        return f"image {i}"

    def fingerprint(self):
        return ""


@pytest.mark.parametrize("channels", [None, 1])
@pytest.mark.parametrize("place", [0, 3])
def test_a_bad_file_among_drawings_is_replaced(folder, channels, place):
    """Its head would say three channels."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 20, 20), np.uint8)
    images, made = list(pixels), views.SimCLR(16, mean=(0.5,), deviation=(0.2,))
    images[place] = (folder / "00.jpg").read_bytes()[:-60]
    loader = Loader(
        Mixed(images), Order(8, 4, seed=None), made, threads=1, bad="skip", channels=channels
    )
    batches = list(loader.batches())
    expected = [i if i != place else 4 + place for i in range(4)], [4, 5, 6, 7]
    for batch, index in zip(batches, expected, strict=True):
        assert batch.index.tolist() == index
        whole = made(torch.from_numpy(pixels[index]), loader._generator(0, batch.step))
        assert torch.equal(batch.images, whole)


@pytest.mark.parametrize("made", [views.SimCLR(16), lambda images, generator: torch.stack(images)])
def test_images_may_run_backwards_in_memory(made):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 20, 20), np.uint8)
    for each in (lambda x: x[:, :, ::-1], lambda x: np.ascontiguousarray(x)[:, ::-1]):
        loader = Loader(Mixed(list(pixels)), Order(4, 4, seed=None), made, threads=1, each=each)
        (batch,) = loader.batches()
        turned = [torch.from_numpy(each(x).copy()) for x in pixels]
        assert torch.equal(batch.images, made(turned, loader._generator(0, 0)))


def test_errors_of_images_and_of_views_reach_the_caller(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "07.png").write_bytes(b"text")
    with pytest.raises(BadImage, match="07.png"):
        list(Loader(Folder(tmp_path), Order(41, 41, seed=0), views.SimCLR(8)).batches())
    loader = Loader(Folder(tmp_path), Order(41, 20, seed=0), views.SimCLR(8), bad="skip")
    for batch in loader.batches(0, 0, 2):
        assert 7 not in batch.index and torch.isfinite(batch.images).all()
    assert set(loader.bad_images) == {7}
    Image.new("L", (9, 9)).save(tmp_path / "07.png")
    broken = views.SimCLR(8, mean=(0.5,))
    with pytest.raises(ValueError, match="mean must have shape"):
        list(Loader(Folder(tmp_path), Order(41, 20, seed=0), broken).batches())


def test_memory_goes_to_the_next_batch_once_nobody_holds_it():
    buffers = Buffers()
    like = torch.empty(2, 10, 4, 5, 3, device="meta").permute(0, 1, 4, 2, 3)
    first = buffers.like(like)
    assert first.shape == (2, 10, 3, 4, 5) and first[0].is_contiguous(
        memory_format=torch.channels_last
    )
    place, part = first.data_ptr(), first[1, 3:]
    del first
    second = buffers.like(like)
    assert second.data_ptr() != place, "a part of it is held"
    del part
    gc.collect()
    other = buffers.like(like[:, :9].contiguous())
    assert other.data_ptr() != place
    assert buffers.like(like).data_ptr() == place


def test_a_thread_that_works_alone_changes_no_other():
    before = torch.get_num_threads()
    with ThreadPoolExecutor(2, initializer=alone) as pool:
        gate = threading.Barrier(2)
        counts = list(pool.map(lambda _: gate.wait() * 0 + torch.get_num_threads(), range(2)))
    with ThreadPoolExecutor(1) as pool:
        new = pool.submit(torch.get_num_threads).result()
    assert counts == [1, 1] and new == torch.get_num_threads() == before
