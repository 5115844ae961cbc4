"""Rotation, jigsaw, patches: the questions that are drawn."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext_tasks import SEEDS, SIDES, images, vectors

from fastcl import pretext
from fastcl.pretext import base, jigsaw, relative_patch


@given(seed=SEEDS, side=st.integers(1, 9), b=st.integers(1, 5))
def test_turning_back_gives_the_image(seed, side, b):
    torch.manual_seed(seed)
    x, label = torch.rand(b, 2, side, side), torch.randint(4, (b,))
    turned = pretext.rotate(x, label)
    assert torch.equal(pretext.rotate(turned, (4 - label) % 4), x)
    assert all(
        torch.equal(t, y.rot90(int(k), (1, 2))) for t, y, k in zip(turned, x, label, strict=True)
    )


def test_every_image_is_seen_in_all_turns():
    x = images(2)
    turned, label = pretext.Rotation(vectors(3), width=6).draw(x)
    assert label.bincount().tolist() == [2, 2, 2, 2]
    assert torch.equal(pretext.rotate(turned, (4 - label) % 4), x.repeat(4, 1, 1, 1))


@pytest.mark.parametrize(
    ("tiles", "count", "least"), [(9, 64, 7), (4, 24, 2), (4, 4, 4), (5, 6, 4)]
)
def test_permutations_are_far_apart(tiles, count, least):
    orders = pretext.permutation_set(tiles, count)
    assert orders.shape == (count, tiles)
    assert torch.equal(orders.sort(1).values, torch.arange(tiles).expand(count, tiles))
    distance = (orders[:, None] != orders).sum(2) + tiles * torch.eye(count)
    assert distance.min() >= least and len(orders.unique(dim=0)) == count


@given(seed=SEEDS, grid=st.sampled_from([2, 3]), side=SIDES)
def test_tiles_in_their_order_lie_in_their_cells(seed, grid, side):
    """Pixels that hold their own place tell where each tile was cut."""
    torch.manual_seed(seed)
    task = pretext.Jigsaw(vectors(1), width=6, grid=grid, permutations=8)
    place = (
        torch.arange(side * side, dtype=torch.float64).view(1, 1, side, side).expand(3, -1, -1, -1)
    )
    tiles = task._tiles(place)
    cell, first = side // grid, tiles[:, :, 0, 0, 0].long()
    row, column = first // side, first % side
    number = torch.arange(grid * grid)
    for at, corner in ((row, number // grid), (column, number % grid)):
        assert (at >= corner * cell).all() and (at + tiles.shape[3] <= (corner + 1) * cell).all()
    assert tiles.shape[3] < cell, "there must be a gap"
    assert torch.equal(
        tiles[:, :, 0, 0, -1].long() - first, torch.full_like(first, tiles.shape[3] - 1)
    )


def test_tiles_are_shown_in_the_order_of_the_label():
    task = pretext.Jigsaw(vectors(1), width=6)
    task._tiles = lambda x: 2.0 ** torch.arange(9).view(1, 9, 1, 1, 1) * torch.rand(1, 1, 1, 2, 2)
    original, jigsaw.standardize = jigsaw.standardize, lambda tiles: tiles
    try:
        tiles, label = task.draw(torch.rand(1, 1, 9, 9))
    finally:
        jigsaw.standardize = original
    sizes = (tiles[0, :, 0, 0, 0] / tiles[0, :, 0, 0, 0].min()).log2().round().long()
    assert torch.equal(sizes, task.order[label[0]])


@given(seed=SEEDS, side=st.integers(3, 9))
def test_channels_shift_and_repeat_the_border(seed, side):
    torch.manual_seed(seed)
    x, offset = torch.rand(2, 3, side, side), torch.randint(-2, 3, (2, 3, 2))
    moved = jigsaw.shift_channels(x, offset)
    i, c, y, z = 1, int(torch.randint(3, ())), *torch.randint(side, (2,)).tolist()
    dy, dz = offset[i, c].tolist()
    clip = lambda v: min(max(v, 0), side - 1)  # noqa: E731
    assert moved[i, c, y, z] == x[i, c, clip(y - dy), clip(z - dz)]


def test_tiles_are_standardized_and_flat_ones_are_zero():
    tiles = jigsaw.standardize(
        torch.stack([torch.rand(3, 4, 4) * 5 + 2, torch.full((3, 4, 4), 0.5)])
    )
    torch.testing.assert_close(tiles[0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiles[0].std(correction=0), torch.tensor(1.0))
    assert torch.equal(tiles[1], torch.zeros(3, 4, 4))


@given(seed=SEEDS, side=SIDES, size=st.integers(1, 6))
def test_crops_reassemble_to_the_image(seed, side, size):
    torch.manual_seed(seed)
    x = torch.rand(2, 3, side, side)
    whole = torch.full_like(x, math.nan)
    starts = sorted({*range(0, side - size + 1, size), side - size})
    for top in starts:
        for left in starts:
            at = torch.full((2,), top), torch.full((2,), left)
            whole[:, :, top : top + size, left : left + size] = base.crop(x, *at, size)
    assert torch.equal(whole, x)


@given(seed=SEEDS, side=st.integers(10, 40))
def test_second_patch_lies_where_the_label_says(seed, side):
    torch.manual_seed(seed)
    task = pretext.RelativePatch(vectors(1), width=6)
    task._without_colour = lambda patches: patches
    place = (
        torch.arange(side * side, dtype=torch.float64).view(1, 1, side, side).expand(9, -1, -1, -1)
    )
    first, second, label = task.draw(place)
    patch = first.shape[2]
    gap, jitter = relative_patch.spacing(patch)
    corners = [x[:, 0, 0, 0].long() for x in (first, second)]
    for axis, (one, two) in enumerate(zip(*((c // side, c % side) for c in corners), strict=True)):
        expected = (patch + gap) * torch.tensor(relative_patch.PLACES)[label, axis]
        assert ((two - one - expected).abs() <= jitter).all()
    assert gap > jitter >= 0, "patches must not touch"


def test_one_channel_of_a_patch_keeps_its_picture():
    task = pretext.RelativePatch(vectors(3), width=6)
    x = images(50, side=8)
    out = task._without_colour(x)
    centred = x - x.mean((1, 2, 3), keepdim=True)
    same = (out == centred).flatten(2).all(2)
    assert (same.sum(1) == 1).all() and same.any(0).all()
    kept = out[same].flatten(1).std(1)
    assert (out[~same].flatten(1).std(1) < 0.02 * kept.repeat_interleave(2)).all()
