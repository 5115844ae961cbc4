"""Batches are the same for any number of threads; ranks share the images; bad ones are named."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

for name in ("PIL", "spdl.pipeline"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402

from fastcl.data import Arrays, BadImage, Folder, Loader, Order  # noqa: E402
from fastcl.data.order import permutation  # noqa: E402

# --- order ----------------------------------------------------------------------------------


@given(
    n=st.integers(1, 60), batch=st.integers(1, 20), ranks=st.integers(1, 5),
    epoch=st.integers(0, 3), tail=st.booleans(),
)  # fmt: skip
def test_ranks_share_every_image_once(n, batch, ranks, epoch, tail):
    if not tail:
        batch = min(batch, n) // ranks * ranks
        if batch == 0:
            return
    orders = [Order(n, batch, seed=3, rank=r, ranks=ranks, tail=tail) for r in range(ranks)]
    steps = [order.epoch(epoch) for order in orders]
    assert {len(of_rank) for of_rank in steps} == {orders[0].steps}
    seen = []
    for parts in zip(*steps, strict=True):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= (1 if tail else 0)
        assert tail or sum(sizes) == batch
        seen += np.concatenate(parts).tolist()
    # The joined ranks are the permutation itself, in its order: nothing lost, nothing twice.
    assert seen == permutation(n, 3, epoch)[: len(seen)].tolist()
    assert len(seen) == (n if tail else n // batch * batch)


def test_the_order_is_a_function_of_seed_and_epoch():
    first = permutation(1000, 5, 7)
    torch.manual_seed(9), np.random.seed(9)
    assert (permutation(1000, 5, 7) == first).all() and sorted(first) == list(range(1000))
    for seed, epoch in ((5, 8), (6, 7), (7, 5)):
        assert (permutation(1000, seed, epoch) != first).mean() > 0.9
    # Of numpy's Philox, for good: a run that goes on elsewhere must find the same images.
    assert permutation(12, 0, 0).tolist() == [0, 7, 6, 1, 9, 3, 8, 10, 5, 2, 4, 11]


def test_what_an_epoch_leaves_out_changes():
    left = [set(range(10)) - set(np.concatenate(Order(10, 4, seed=0).epoch(e))) for e in range(60)]
    assert all(len(out) == 2 for out in left) and set.union(*left) == set(range(10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be 1 or more"), ({"batch": 11}, "at most the 10 images, got 11"),
        ({"batch": 5, "ranks": 2}, "multiple of the 2 ranks"),
        ({"seed": -1}, "seed must be from 0"),
        ({"rank": 2, "ranks": 2}, "rank must be from 0 to 1, got 2"),
    ],
)  # fmt: skip
def test_orders_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Order(**({"n": 10, "batch": 4, "seed": 0} | arguments))


# --- loader ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """61 pictures of different sizes, whose red tells their number."""
    root = tmp_path_factory.mktemp("set")
    for i in range(61):
        path = root / f"{i % 3}" / f"{i:03}.{'png' if i % 4 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20 + i % 7, 16 + i % 5), (4 * i, 0, 0)).save(path, quality=95)
    return root


def noisy(images, generator):
    """The mean of each image, its size, and chance."""
    means = torch.tensor([[x[0].float().mean(), *x.shape[1:]] for x in images])
    return means, torch.rand(len(images), generator=generator)


def listed(loader, *place):
    return [(b.epoch, b.step, b.index, b.labels, *b.images) for b in loader.batches(*place)]


def same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a[:2] == b[:2] and all(torch.equal(x, y) for x, y in zip(a[2:], b[2:], strict=True))


def test_batches_are_the_same_for_any_number_of_threads(folder):
    source = Folder(folder)
    whole = [
        listed(Loader(source, Order(61, 20, seed=1), noisy, threads=threads), 0, 0, 3)
        for threads in (1, 2, 7)
    ]
    assert [batch[:2] for batch in whole[0]] == [(e, s) for e in range(3) for s in range(3)]
    same(whole[0], whole[1]), same(whole[0], whole[2])
    for epoch, step, index, labels, means, chance in whole[0]:
        assert index.tolist() == Order(61, 20, seed=1).epoch(epoch)[step].tolist()
        assert torch.equal(labels, torch.from_numpy(source.labels)[index])
        number = torch.tensor([int(source.names[i].split("/")[1][:3]) for i in index.tolist()])
        assert ((means[:, 0] - 4 * number).abs() < 3).all()
        assert torch.equal(means[:, 1], 16.0 + number % 5) and chance.unique().numel() == 20


@pytest.mark.parametrize("place", [(0, 1), (1, 2), (2, 0)])
def test_a_run_goes_on_in_the_middle_of_an_epoch(folder, place):
    source, order = Folder(folder), Order(61, 20, seed=4)
    whole = listed(Loader(source, order, noisy, threads=2), 0, 0, 3)
    same(whole[3 * place[0] + place[1] :], listed(Loader(source, order, noisy), *place, 3))


def test_ranks_read_different_images_with_different_chance(folder):
    source = Folder(folder)
    ranks = [
        listed(Loader(source, Order(61, 30, seed=0, rank=r, ranks=3, tail=True), noisy))
        for r in range(3)
    ]
    seen = torch.cat([batch[2] for of_rank in ranks for batch in of_rank])
    assert sorted(seen.tolist()) == list(range(61))
    assert not torch.equal(ranks[0][0][-1], ranks[1][0][-1])


def test_arrays_and_no_views():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 2, 4, 4), dtype=np.uint8)
    (batch,) = Loader(Arrays(pixels, None), Order(9, 9, seed=None, tail=True)).batches()
    assert batch.labels is None and batch.index.tolist() == list(range(9))
    assert torch.equal(torch.stack(batch.images), torch.from_numpy(pixels))


@pytest.fixture
def damaged(folder, tmp_path):
    """The same with five files that are cut off, empty, text, gone and locked."""
    for path in folder.rglob("*.*"):
        copy = tmp_path / "set" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    root = tmp_path / "set"
    whole = (root / "0/012.jpg").read_bytes()
    (root / "0/012.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "1/025.png").write_bytes(b"")
    (root / "2/005.png").write_text("text")
    (root / "2/008.jpg").unlink()
    (root / "2/008.jpg").symlink_to(root / "nowhere")
    return root


def test_a_bad_image_is_an_error_with_its_name(damaged):
    with pytest.raises(BadImage, match=r"\d\d\d.(png|jpg)' (is no readable|cannot be read)"):
        listed(Loader(Folder(damaged), Order(61, 20, seed=0), noisy))
    order = Order(61, 1, seed=None)
    loader = Loader(Folder(damaged), order, noisy, threads=3)
    found = []
    with pytest.raises(BadImage, match="012.jpg' is no readable image: .*[Tt]runcated"):
        for batch in loader.batches():
            found.append(batch.step)
    assert found == list(range(len(found))) and loader.source.name(len(found)).endswith("012.jpg'")


@pytest.mark.parametrize("threads", [1, 4])
def test_bad_images_are_skipped_counted_and_named(damaged, threads):
    source, order = Folder(damaged), Order(61, 20, seed=0)
    loader = Loader(source, order, noisy, threads=threads, bad="skip")
    batches = listed(loader, 0, 0, 4)
    bad = {i for i in range(61) if source.names[i][2:5] in ("012", "025", "005", "008")}
    assert set(loader.bad_images) == bad
    assert all(source.name(i) in text for i, text in loader.bad_images.items())
    for epoch, step, index, labels, means, _ in batches:
        expected = order.epoch(epoch)[step]
        kept = torch.tensor([int(i) not in bad for i in expected])
        assert torch.equal(index[kept], torch.from_numpy(expected)[kept])
        assert not bad & set(index.tolist()) and len(index.unique()) == 20
        assert torch.equal(labels, torch.from_numpy(source.labels)[index])
        number = torch.tensor([int(source.names[i][2:5]) for i in index.tolist()])
        assert ((means[:, 0] - 4 * number).abs() < 3).all()
    same(batches, listed(Loader(source, order, noisy, threads=2, bad="skip"), 0, 0, 4))


def test_only_bad_images_are_an_error_also_where_they_are_skipped(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_text("text")
    loader = Loader(Folder(tmp_path), Order(6, 2, seed=0), noisy, bad="skip")
    with pytest.raises(BadImage, match="and all images that could take its place are bad"):
        listed(loader)


def test_errors_of_views_reach_the_caller(folder):
    def views(images, generator):
        raise RuntimeError("no view")

    with pytest.raises(RuntimeError, match="no view"):
        listed(Loader(Folder(folder), Order(61, 20, seed=0), views))


def test_a_loader_that_is_left_ends_its_threads(folder):
    before = threading.active_count()
    for _ in range(3):
        for _batch in Loader(Folder(folder), Order(61, 20, seed=0), noisy).batches(0, 0, 50):
            break
    limit = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < limit:
        time.sleep(0.05)
    assert threading.active_count() <= before


class Counting(Arrays):
    """Counts what is read."""

    def read(self, i):
        self.count = getattr(self, "count", 0) + 1
        return super().read(i)


def test_few_batches_wait():
    source = Counting(np.zeros((4000, 1, 4, 4), np.uint8), None)
    batches = Loader(source, Order(4000, 10, seed=0), threads=2).batches()
    next(batches)
    time.sleep(1)
    assert source.count <= 200, "a batch and what is ahead of it, not the data"
    batches.close()


def test_waiting_and_the_slowest_stage():
    def slow(images, generator):
        time.sleep(0.05)
        return torch.stack(images)

    source = Arrays(np.zeros((100, 1, 4, 4), np.uint8), None)
    loader = Loader(source, Order(100, 10, seed=0), slow, threads=2)
    for _ in loader.batches():
        pass
    reports = loader.reports()
    assert loader.slowest() == "views" == max(reports, key=lambda name: reports[name].busy)
    quick = Loader(source, Order(100, 10, seed=0), threads=2)
    for _ in quick.batches():
        time.sleep(0.05)
    assert quick.waited / quick.elapsed < loader.waited / loader.elapsed, "the next was ready"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"threads": 0}, "threads must be 1 or more, got 0"), ({"bad": "hide"}, "bad must be one of")],
)
def test_loaders_that_cannot_be(arguments, message):
    source = Arrays(np.zeros((5, 1, 4, 4), np.uint8), None)
    with pytest.raises(ValueError, match=message):
        Loader(source, Order(5, 2, seed=0), **arguments)
    with pytest.raises(ValueError, match="order must be of the 5 images, got 6"):
        Loader(source, Order(6, 2, seed=0))
