"""Colour, holes, time, words: the questions that are drawn."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext_tasks import SEEDS, images, maps, vectors

from fastcl import pretext
from fastcl.pretext import colorization, inpainting
from fastcl.pretrain.lab import XYZ, lab

# Of the corners of sRGB under D65 (CIE 15, IEC 61966-2-1), to the decimals of the usual tables.
CORNERS = {
    (0, 0, 0): (0, 0, 0), (1, 1, 1): (100, 0, 0), (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18), (0, 0, 1): (32.30, 79.19, -107.86),
    (0, 1, 1): (91.11, -48.09, -14.13), (1, 0, 1): (60.32, 98.23, -60.82),
    (1, 1, 0): (97.14, -21.55, 94.48),
}  # fmt: skip


def rgb(x):
    """sRGB of CIE L*a*b*, by the inverse of every step."""
    y = (x[:, :1] + 16) / 116
    f = torch.cat([y + x[:, 1:2] / 500, y, y - x[:, 2:] / 200], 1)
    xyz = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(x.new_tensor(XYZ)), xyz)
    curved = 1.055 * linear.clamp(min=0) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear)


def test_lab_of_the_corners():
    x, expected = (torch.tensor(list(side), dtype=torch.float32)
                   for side in (CORNERS.keys(), CORNERS.values()))  # fmt: skip
    torch.testing.assert_close(lab(x[..., None, None])[..., 0, 0], expected, rtol=0, atol=2e-2)


@given(seed=SEEDS)
def test_lab_and_back(seed):
    torch.manual_seed(seed)
    x = images(2, side=5)
    lightness, color = colorization.split(x)
    back = rgb(torch.cat([lightness, color], 1))
    # The two halves of the curve of sRGB meet to within 1e-8 only.
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)


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
