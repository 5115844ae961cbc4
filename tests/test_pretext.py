"""Pretext tasks: their questions, their losses against plain PyTorch, and that they learn."""

import copy
import math

import kornia.color
import plain
import plain_pretext
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastcl import pretext
from fastcl.pretext import base, colorization, inpainting, jigsaw, relative_patch, temporal
from fastcl.pretrain.lab import lab

SEEDS = st.integers(0, 2**31 - 1)
SIDES = st.integers(6, 20)


def maps(channels, width=6):
    """Feature maps at half the side; no batch normalisation, so that parts may be run apart."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.Tanh())


def vectors(channels, width=6):
    return nn.Sequential(maps(channels, width), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def images(b=3, channels=3, side=16):
    return torch.rand(b, channels, side, side, dtype=torch.float64)


TASKS = {
    "rotation": (lambda: pretext.Rotation(vectors(3), width=6), images),
    "jigsaw": (lambda: pretext.Jigsaw(vectors(3), width=6, hidden=9, permutations=10), images),
    "relative_patch": (lambda: pretext.RelativePatch(vectors(3), width=6, hidden=9), images),
    "colorization": (lambda: pretext.Colorization(maps(1), width=6), images),
    "split_brain": (lambda: pretext.SplitBrain(maps(1), maps(2), width=6), images),
    "inpainting": (lambda: pretext.Inpainting(maps(3), width=6, size=16), images),
    "temporal_order": (
        lambda: pretext.TemporalOrder(vectors(3), width=6),
        lambda: torch.rand(3, 5, 3, 8, 8, dtype=torch.float64),
    ),
    "time_contrastive": (
        lambda: pretext.TimeContrastive(vectors(3), width=6, window=3),
        lambda: torch.rand(2, 9, 3, 8, 8, dtype=torch.float64),
    ),
}


def value_and_gradients(task, loss):
    task.zero_grad()
    value = loss()
    value.backward()
    return value.detach(), [p.grad.clone() for p in task.parameters()]


# --- losses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_loss_and_gradients_equal_plain_pytorch(name):
    build, batch = TASKS[name]
    task = build().double()
    if name == "colorization":
        task.rebalance(images(8))
    drawn = task.draw(batch())
    ours = value_and_gradients(task, lambda: task.loss(*drawn))
    reference = getattr(plain_pretext, name)
    expected = value_and_gradients(task, lambda: reference(task, *drawn))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    assert all((g != 0).any() for g in ours[1])


@pytest.mark.parametrize("name", TASKS)
def test_forward_is_loss_of_a_draw(name):
    build, batch = TASKS[name]
    task, x = build().double(), batch()
    torch.manual_seed(3)
    value = task(x)
    torch.manual_seed(3)
    assert torch.equal(value, task.loss(*task.draw(x)))


def test_skip_gram_equals_plain_pytorch():
    task = pretext.SkipGram(torch.rand(20) + 0.1, width=5, noise=4).double()
    nn.init.normal_(task.contexts)
    center, context = torch.randint(20, (2, 30))
    index = task.draw(context)
    assert torch.equal(index[:, 0], context) and index.shape == (30, 5)

    def reference():
        return plain.negative_sampling(task.vectors[center], task.contexts, index)

    ours = value_and_gradients(task, lambda: task.loss(center, index))
    torch.testing.assert_close(ours, value_and_gradients(task, reference), rtol=1e-9, atol=1e-12)


def test_noise_follows_the_counts_to_three_quarters():
    counts = torch.tensor([1.0, 16.0, 81.0])
    task = pretext.SkipGram(counts, width=2)
    expected = torch.tensor([1.0, 8.0, 27.0]) / 36
    torch.testing.assert_close(task.table.probabilities, expected)


# --- rotation -------------------------------------------------------------------------------


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


# --- jigsaw ---------------------------------------------------------------------------------


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


# --- patches --------------------------------------------------------------------------------


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


# --- colour ---------------------------------------------------------------------------------


@given(seed=SEEDS)
def test_lab_and_back(seed):
    torch.manual_seed(seed)
    x = images(2, side=5)
    lightness, color = colorization.split(x)
    back = kornia.color.lab_to_rgb(torch.cat([lightness, color], 1), clip=False)
    # A quarter of a grey level: kornia's matrices have six digits.
    torch.testing.assert_close(back, x, rtol=0, atol=0.25 / 255)
    torch.testing.assert_close(lab(x), kornia.color.rgb_to_lab(x), rtol=0, atol=2e-2)


def test_grey_has_no_colour_and_bins_hold_the_gamut():
    lightness, color = colorization.split(torch.rand(2, 1, 4, 4).expand(-1, 3, -1, -1))
    assert color.abs().max() < 0.05 and lightness.min() >= 0
    bins = colorization.gamut_bins()
    assert len(bins) == len(bins.unique(dim=0)) == 259 and [0.0, 0.0] in bins.tolist()
    _, color = colorization.split(torch.rand(8, 3, 16, 16))
    distance = torch.cdist(color.movedim(1, 3).flatten(0, 2), bins).min(1).values
    assert distance.max() < 12, "no colour is farther from a bin than a bin's diagonal"


def test_rare_colours_weigh_more_and_one_on_average():
    task = pretext.Colorization(maps(1), width=6)
    x = torch.full((1, 3, 10, 10), 0.5)
    x[:, :, 0, 0] = torch.tensor([1.0, 0, 0])
    task.rebalance(x)
    color = colorization.split(x)[1].movedim(1, 3).flatten(0, 2)
    weight = task.weight[task.encode(color)[0][:, 0]]
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    assert weight[0] > 20 * weight[1]


# --- holes ----------------------------------------------------------------------------------


@given(seed=SEEDS, side=st.integers(8, 64))
def test_blocks_hide_something_and_a_quarter_at_most(seed, side):
    torch.manual_seed(seed)
    hidden = inpainting.blocks(5, side, torch.device("cpu"))
    share = hidden.mean((1, 2, 3))
    assert ((hidden == 0) | (hidden == 1)).all() and (share > 0).all() and (share <= 0.25).all()


@given(side=st.integers(4, 32).map(lambda x: 4 * x))
def test_centre_hole_is_weighed_with_its_edge(side):
    hidden, weight = inpainting.center(side, torch.zeros(1, 3, side, side))
    assert (weight > 0).sum() == side * side // 4
    assert ((weight == 1) == (hidden == 1)).all()
    assert ((weight == inpainting.EDGE_WEIGHT) == ((weight > 0) & (hidden == 0))).all()
    assert torch.equal(hidden, hidden.flip(2, 3)) and hidden.any()


def test_network_does_not_see_the_hole():
    task = pretext.Inpainting(maps(3), width=6, size=16).double()
    x, seen, weight = task.draw(images())
    noise = torch.randn_like(x) * (1 - seen)
    seen_by = []
    task.backbone.register_forward_pre_hook(lambda _m, inputs: seen_by.append(inputs[0]))
    assert task.loss(x, seen, weight) != task.loss(x + noise, seen, weight)
    assert torch.equal(*seen_by)


# --- time -----------------------------------------------------------------------------------


def test_tuples_in_order_are_labelled_so():
    frames = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(40, 5, 1, 1, 1)
    tuples, label = pretext.TemporalOrder(vectors(1), width=6).draw(frames)
    found = {
        (tuple(t.flatten().int().tolist()), int(k)) for t, k in zip(tuples, label, strict=True)
    }
    orders = {(1, 2, 3): 1, (3, 2, 1): 1, (1, 0, 3): 0, (3, 0, 1): 0, (1, 4, 3): 0, (3, 4, 1): 0}
    assert found == set(orders.items())


def test_windows_are_where_something_moves():
    video = torch.zeros(100, 1, 4, 4)
    video[60:80] = torch.rand(20, 1, 4, 4)
    windows = pretext.motion_windows(video, 50, step=3)
    assert windows.shape == (50, 5, 1, 4, 4)
    assert (windows.flatten(1).std(1) > 0).float().mean() > 0.9


@given(seed=SEEDS, window=st.integers(1, 5), two=st.booleans())
def test_triplets_keep_their_distance_in_time(seed, window, two):
    torch.manual_seed(seed)
    t = 2 * window + 6
    time = torch.arange(float(t)).view(t, 1, 1, 1).expand(t, 1, 2, 2)
    task = pretext.TimeContrastive(vectors(1), width=6, window=window)
    anchor, positive, negative = (
        x[:, 0, 0, 0] for x in task.draw(torch.stack([time, time + 1000]) if two else time)
    )
    assert torch.equal(anchor, torch.arange(float(t)))
    assert ((negative - anchor).abs() >= window).all()
    away = (positive - anchor - 1000 * two).abs()
    assert (away == 0).all() if two else ((away > 0) & (away <= max(1, window // 2))).all()


# --- words ----------------------------------------------------------------------------------


@given(seed=SEEDS, n=st.integers(1, 20), window=st.integers(1, 4))
def test_pairs_are_neighbours(seed, n, window):
    torch.manual_seed(seed)
    centers, contexts = pretext.word_pairs(torch.arange(n), window)
    away = (centers - contexts).abs()
    assert ((away >= 1) & (away <= window)).all()
    assert (away == 1).sum() == 2 * (n - 1), "the nearest words are always there"


def test_frequent_words_are_thinned_out():
    counts = torch.tensor([0.99, 0.01])
    tokens = torch.cat([torch.zeros(9900), torch.ones(100)]).long()
    left = pretext.subsample(tokens, counts, threshold=0.01)
    assert (left == 1).sum() == 100 and abs((left == 0).sum() - 9900 * (0.01 / 0.99) ** 0.5) < 200


# --- learning -------------------------------------------------------------------------------


def scenes(b=64, side=16):
    """A bright sky over dark ground; warm above, cool below."""
    height = torch.linspace(0, 1, side).view(1, 1, side, 1).expand(b, 3, side, side)
    tint = torch.tensor([0.9, 0.5, 0.1]).view(1, 3, 1, 1)
    x = (1 - height) * tint + height * tint.flip(1)
    across = torch.linspace(0, 0.4, side).view(1, 1, 1, side)
    return (0.7 * x + across + 0.05 * torch.randn(b, 3, side, side)).clamp(0, 1)


def network(channels, pooled=True):
    layers = [
        nn.Conv2d(channels, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
    ]  # fmt: skip
    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()] if pooled else []
    return nn.Sequential(*layers, *pool)


def video(b=24, side=8):
    """A dot that crosses the picture, from left to right."""
    place = torch.arange(5) * 1.5 + 0.5 * torch.rand(b, 1)
    columns = torch.arange(side)
    dot = torch.exp(-((columns - place[..., None]) ** 2))
    return dot[:, :, None, None, :].expand(b, 5, 1, side, side)


# Task, batch, and what blind guessing costs: log of the classes, or the variance of the pixels.
LEARNING = {
    "rotation": (
        lambda: pretext.Rotation(network(3), width=96), lambda: scenes(16), math.log(4)
    ),
    "jigsaw": (
        lambda: pretext.Jigsaw(network(3), width=96, grid=2, permutations=24, hidden=64, gray=0),
        scenes, math.log(24),
    ),
    "relative_patch": (
        lambda: pretext.RelativePatch(network(3), width=24 * 4, patch=3, hidden=64),
        lambda: scenes(256), math.log(8),
    ),
    "colorization": (
        lambda: pretext.Colorization(network(1, False), width=24), lambda: scenes(16),
        math.log(259),
    ),
    "split_brain": (
        lambda: pretext.SplitBrain(network(1, False), network(2, False), width=24),
        lambda: scenes(16), math.log(259) + math.log(50),
    ),
    "inpainting": (
        lambda: pretext.Inpainting(network(3, False), width=24, size=16),
        lambda: (scenes(32) - 0.5) / 0.25, 1.0,
    ),
    "temporal_order": (
        lambda: pretext.TemporalOrder(network(1), width=96), video, math.log(3) - math.log(4) / 3
    ),
    "time_contrastive": (
        lambda: pretext.TimeContrastive(network(1), width=96, window=2),
        lambda: video(1)[0].repeat(1, 1, 1, 1), 0.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNING)
def test_learns(name):
    build, batch, chance = LEARNING[name]
    task = build()
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss = task(batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.7 * chance, f"{losses[0]:.3f} to {losses[-1]:.3f}"


def test_skip_gram_learns_which_words_go_together():
    """Words 2i and 2i + 1 always stand together."""
    task = pretext.SkipGram(torch.ones(20), width=16)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.05)
    pairs = torch.arange(20).view(10, 2)
    center, context = torch.cat([pairs, pairs.flip(1)]).T
    before = task(center, context).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = task(center, context)
        loss.backward()
        optimizer.step()
    assert before == pytest.approx(6 * math.log(2)) and loss.item() < 0.5 * before
    assert torch.equal((task.vectors @ task.contexts.T).argmax(1)[center], context)


# --- beside other losses --------------------------------------------------------------------


def test_auxiliary_adds_weighted_losses():
    backbone = vectors(3)
    tasks = {"rotation": pretext.Rotation(backbone, width=6)}
    together = pretext.Auxiliary(tasks, {"rotation": 0.3}).double()
    x, main = images(), torch.tensor(2.0, dtype=torch.float64)
    assert torch.allclose(together(main, x), 2 + 0.3 * tasks["rotation"](x))


@given(seed=SEEDS)
def test_prototypes_are_class_means(seed):
    torch.manual_seed(seed)
    support, query, labels = torch.randn(6, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    means = torch.stack([support[labels == c].mean(0) for c in range(3)])
    expected = -(torch.cdist(query, means, compute_mode="donot_use_mm_for_euclid_dist") ** 2)
    torch.testing.assert_close(pretext.prototype_logits(support, labels, query), expected)


@settings(max_examples=5)
@given(seed=SEEDS)
def test_recipes_equal_their_sums(seed):
    torch.manual_seed(seed)
    backbone = vectors(3).double()
    task = pretext.Rotation(backbone, width=6).double()
    x, y, more = images(4), torch.tensor([0, 1, 0, 1]), images(5)
    semi = pretext.SemiSupervised(backbone, task, width=6, classes=2, weight=0.5).double()
    main = nn.functional.cross_entropy(semi.classifier(backbone(x)), y)
    torch.testing.assert_close(semi(x, y, more), main + 0.5 * task(torch.cat([x, more])))
    few = pretext.FewShot(backbone, task, weight=0.5)
    logits = pretext.prototype_logits(backbone(x), y, backbone(more[:2]))
    main = nn.functional.cross_entropy(logits, y[:2])
    torch.testing.assert_close(
        few(x, y, more[:2], y[:2]), main + 0.5 * task(torch.cat([x, more[:2]]))
    )


# --- bad input ------------------------------------------------------------------------------

X = torch.rand(2, 3, 16, 16)
BAD = {
    "no_tensor": (lambda: task("rotation")([1]), TypeError, "images must be a tensor, got list"),
    "rank": (lambda: task("rotation")(X[0]), ValueError, "images must have 4 dimensions"),
    "integers": (lambda: task("jigsaw")(X.long()), TypeError, "images must be float16"),
    "oblong": (
        lambda: task("rotation")(X[..., :9]),
        ValueError,
        "images must be square, got 16 x 9",
    ),
    "empty": (lambda: task("rotation")(X[:0]), ValueError, "images must not be empty"),
    "grey": (lambda: task("colorization")(X[:, :1]), ValueError, "must have 3 channels, got 1"),
    "grey_two": (lambda: task("split_brain")(X[:, :1]), ValueError, "must have 3 channels, got 1"),
    "tiny": (
        lambda: task("jigsaw")(X[..., :5, :5]),
        ValueError,
        "6 pixels to a side at least, got 5",
    ),
    "patch": (lambda: task("relative_patch")(X[..., :4, :4]), ValueError, "5 pixels to a side"),
    "size": (lambda: task("inpainting")(X[..., :8, :8]), ValueError, "must have size 16, got 8"),
    "frames": (lambda: task("temporal_order")(torch.rand(2, 4, 3, 8, 8)), ValueError, "5 frames"),
    "short": (
        lambda: task("time_contrastive")(torch.rand(5, 3, 8, 8)),
        ValueError,
        "6 frames at least",
    ),
    "views": (
        lambda: task("time_contrastive")(torch.rand(3, 9, 3, 8, 8)),
        ValueError,
        "1 or 2 views",
    ),
    "grid": (
        lambda: pretext.Jigsaw(vectors(3), width=6, grid=4),
        ValueError,
        "grid must be one of 2, 3",
    ),
    "gray": (
        lambda: pretext.Jigsaw(vectors(3), width=6, gray=2),
        ValueError,
        "gray must be from 0 to 1",
    ),
    "shift": (lambda: pretext.Jigsaw(vectors(3), width=6, shift=-1), ValueError, "shift must be"),
    "count": (
        lambda: pretext.permutation_set(3, 7),
        ValueError,
        "count must be from 2 to 6, got 7",
    ),
    "tiles": (
        lambda: pretext.permutation_set(10, 7),
        ValueError,
        "tiles must be from 2 to 9, got 10",
    ),
    "width": (lambda: pretext.Rotation(vectors(3), width=0), ValueError, "width must be 1 or more"),
    "hole": (
        lambda: pretext.Inpainting(maps(3), width=6, size=16, hole="all"),
        ValueError,
        "hole must",
    ),
    "odd": (
        lambda: pretext.Inpainting(maps(3), width=6, size=18),
        ValueError,
        "multiple of 4, got 18",
    ),
    "margin": (
        lambda: pretext.TimeContrastive(vectors(3), width=6, margin=0),
        ValueError,
        "margin must be",
    ),
    "counts": (lambda: pretext.SkipGram([1, 2], width=3), TypeError, "weights must be"),
    "weights": (
        lambda: pretext.Auxiliary({"a": nn.Identity()}, {"b": 1}),
        ValueError,
        "weights must be of a",
    ),
    "none": (lambda: pretext.Auxiliary({}), ValueError, "tasks must hold one"),
    "support": (
        lambda: pretext.prototype_logits(torch.rand(2, 3), torch.tensor([0, 2]), torch.rand(1, 3)),
        ValueError,
        "support for every class",
    ),
    "maps": (
        lambda: base.feature_maps(nn.Flatten(0), X),
        ValueError,
        r"backbone must return \[b, width",
    ),
}


def task(name):
    return TASKS[name][0]()


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_state_dict_round_trip():
    for build, _ in TASKS.values():
        one, two = build(), build()
        two.load_state_dict(copy.deepcopy(one.state_dict()))
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)
        )


def test_backbones_of_other_libraries_give_maps():
    class Timm(nn.Module):
        def forward_features(self, x):
            return x[:, :, ::4, ::4]

    assert base.feature_maps(Timm(), X).shape == (2, 3, 4, 4)
    assert base.feature_maps(vectors(3), X).shape == (2, 6, 1, 1)
    assert len(temporal.TUPLES) == 3
