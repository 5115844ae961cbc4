"""The parameters of random views: torchvision's rules, one by one and in distribution."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from view_cases import NAMES

from fastcl import views
from fastcl.views import Recipe, draw

EVERYTHING = Recipe(
    mirror=0.5, jitter=0.8, brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1, grey=0.2,
    blur=0.3, sigma=(0.1, 2.0), solarise=0.25, threshold=0.5,
)  # fmt: skip
N = 4000
LEAST_P = 1e-4  # of one test; the seeds are fixed


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def columns(recipe, n=N, sides=(60, 90), seed=0):
    """Every parameter of n views `[n]` by its name."""
    drawn = draw([recipe], (n, *sides), generator=generator(seed))
    return dict(zip(NAMES, drawn[:, 0].double().unbind(1), strict=True))


def uniform(x, low, high):
    return stats.kstest(x.numpy(), stats.uniform(low, high - low).cdf).pvalue


def chance(happened, p):
    return stats.binomtest(int(happened.sum()), len(happened), p).pvalue


def plain_box(area, log_ratio, place, h, w, ratio):
    """torchvision's RandomResizedCrop.get_params with its random numbers given; None at a tie."""
    for share, log in zip(area, log_ratio, strict=True):
        wide, high = (math.sqrt(h * w * share * math.exp(sign * log)) for sign in (1, -1))
        if any(abs(x % 1 - 0.5) < 1e-3 for x in (wide, high)):
            return None  # float32 may round it to the other side
        wide, high = round(wide), round(high)
        if 0 < wide <= w and 0 < high <= h:
            return int(place[0] * (h - high + 1)), int(place[1] * (w - wide + 1)), high, wide
    high, wide = h, w
    if w / h < ratio[0]:
        high = round(w / ratio[0])
    elif w / h > ratio[1]:
        wide = round(h * ratio[1])
    return (h - high) // 2, (w - wide) // 2, high, wide


@given(
    h=st.integers(1, 300), w=st.integers(1, 300), seed=st.integers(0, 2**31 - 1),
    least=st.sampled_from([0.05, 0.3, 0.9]), widest=st.sampled_from([1.1, 4 / 3, 2.0]),
)  # fmt: skip
def test_crops_follow_the_rule(h, w, seed, least, widest):
    ratio = (1 / widest, widest)
    recipe = Recipe(scale=(least, 1.0), ratio=ratio)
    drawn = draw([recipe, recipe], (20, h, w), generator=generator(seed))
    u = torch.rand(33, 20, 2, generator=generator(seed)).double()
    area = least + (1 - least) * u[:10]
    log_ratio = math.log(widest) * (2 * u[10:20] - 1)
    compared = 0
    for i in range(20):
        for v in range(2):
            numbers = (x[:, i, v].tolist() for x in (area, log_ratio, u[20:22]))
            box = plain_box(*numbers, h, w, ratio)
            compared += box is not None
            assert box is None or tuple(drawn[i, v, :4].tolist()) == box
    assert compared >= 20, "most boxes are beyond doubt"


@pytest.mark.parametrize("sides", [(1, 1), (10, 1000), (1000, 10), (1, 7), (3, 2)])
def test_crops_lie_inside_of_any_image(sides):
    box = draw([EVERYTHING], (500, *sides), generator=generator())[:, 0, :4]
    assert (box[:, 2:] >= 1).all() and (box[:, :2] >= 0).all()
    assert (box[:, :2] + box[:, 2:] <= torch.tensor(sides)).all()
    assert torch.equal(box, box.round())


def test_long_images_are_cut_to_the_middle():
    box = draw([Recipe(scale=(0.9, 1.0))], (50, 30, 300), generator=generator())[:, 0, :4]
    assert torch.equal(box, torch.tensor([0.0, 130.0, 30.0, 40.0]).expand(50, 4))


def test_every_number_has_its_distribution():
    x = columns(EVERYTHING)
    jittered = x["brightness"] != 1
    p = {
        "jitter": chance(jittered, 0.8),
        "mirror": chance(x["mirror"] == 1, 0.5),
        "grey": chance(x["grey"] == 1, 0.2),
        "blur": chance(x["sigma"] > 0, 0.3),
        "solarise": chance(x["threshold"] == 0.5, 0.25),
        "order": stats.chisquare(x["order"].int().bincount(minlength=24).numpy()).pvalue,
        "sigma": uniform(x["sigma"][x["sigma"] > 0], 0.1, 2.0),
        "brightness": uniform(x["brightness"][jittered], 0.6, 1.4),
        "contrast": uniform(x["contrast"][jittered], 0.0, 2.5),
        "saturation": uniform(x["saturation"][jittered], 0.8, 1.2),
        "hue": uniform(x["hue"][jittered], -0.1, 0.1),
    }
    assert {name: value for name, value in p.items() if value < LEAST_P} == {}
    assert set(x["mirror"].tolist()) == set(x["grey"].tolist()) == {0, 1}
    assert x["threshold"][x["threshold"] != 0.5].min() > 1
    still = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0}
    assert all((x[name][~jittered] == value).all() for name, value in still.items())


def test_a_wrong_chance_would_be_found():
    x = columns(EVERYTHING)
    assert chance(x["mirror"] == 1, 0.55) < LEAST_P
    assert uniform(x["sigma"][x["sigma"] > 0], 0.1, 2.2) < LEAST_P


def test_numbers_have_nothing_to_do_with_each_other():
    recipe = replace(EVERYTHING, jitter=1.0, blur=1.0)
    drawn = draw([recipe, recipe], (N, 1000, 1000), generator=generator(1)).double()
    every = torch.corrcoef(drawn.permute(1, 2, 0).reshape(26, N))
    within, between = every[4:13, 4:13], every[:13, 13:]  # a crop's corner depends on its size
    limit = 4.5 / N**0.5
    assert within.fill_diagonal_(0).abs().max() < limit and between.abs().max() < limit


def test_each_view_has_its_recipe():
    one, two = Recipe(mirror=1.0, blur=1.0), Recipe(grey=1.0, middle=0.5)
    x = draw([one, two], (30, 40, 60), generator=generator())
    assert (x[:, 0, [4, 10]] == torch.tensor([1.0, 0.0])).all() and (x[:, 0, 11] > 0).all()
    assert (x[:, 1, [4, 10, 11]] == torch.tensor([0.0, 1.0, 0.0])).all()
    assert (x[:, 1, :4] == torch.tensor([10.0, 20.0, 20.0, 20.0])).all()


def test_sizes_are_those_of_each_image():
    sizes = torch.tensor([[5, 400], [400, 5], [64, 64]]).repeat(200, 1)
    x = draw([EVERYTHING], sizes, generator=generator())[:, 0]
    assert (x[:, :2] + x[:, 2:4] <= sizes).all()
    assert (x[::3, 3] > 6).any() and (x[1::3, 2] > 6).any()
    alike = draw([EVERYTHING], torch.tensor([[60, 90]]).expand(7, 2), generator=generator())
    assert torch.equal(alike, draw([EVERYTHING], (7, 60, 90), generator=generator()))


def test_chance_comes_from_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = draw([EVERYTHING], (9, 8, 8), generator=generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, draw([EVERYTHING], (9, 8, 8), generator=generator(3)))
    assert not torch.equal(first, draw([EVERYTHING], (9, 8, 8), generator=generator(4)))
    torch.manual_seed(3)
    assert torch.equal(first, draw([EVERYTHING], (9, 8, 8)))


def test_nothing_is_read_on_the_host():
    # A meta tensor has no values: looking at one is an error.
    sizes = torch.empty(4, 2, dtype=torch.int64, device="meta")
    for recipe in (EVERYTHING, Recipe(middle=0.5)):
        assert draw([recipe, recipe], sizes).shape == (4, 2, 13)
        assert draw([recipe], (4, 8, 8), device="meta").device.type == "meta"


@pytest.mark.gpu
def test_a_gpu_draws_without_waiting():
    recipes = [EVERYTHING, Recipe(middle=0.5)]
    for sizes in ((64, 30, 40), torch.tensor([[30, 40]] * 64, device="cuda")):
        own = torch.Generator("cuda").manual_seed(0)
        draw(recipes, sizes, device="cuda")  # what recipes say goes over once
        torch.cuda.set_sync_debug_mode("error")
        try:
            x = draw(recipes, sizes, generator=own, device="cuda")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert (x[:, 0, :2] + x[:, 0, 2:4] <= torch.tensor([30, 40], device="cuda")).all()
        assert (x[:, 1, :4] == torch.tensor([7, 12, 15, 15], device="cuda")).all()
    with pytest.raises(ValueError, match="generator must be on cuda, got one on cpu"):
        draw(recipes, (2, 3, 3), generator=generator(), device="cuda")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], (1, 2, 2)), ValueError, "recipes must hold one recipe for each view at least"),
        (([3], (1, 2, 2)), TypeError, r"recipes\[0\] must be a Recipe, got int"),
        (([EVERYTHING], (0, 2, 2)), ValueError, "b must be 1 or more, got 0"),
        (([EVERYTHING], (1, 0, 2)), ValueError, "height must be 1 or more, got 0"),
        (([EVERYTHING], (1, 2, 2.5)), TypeError, "width must be an integer, got float"),
        (([EVERYTHING], torch.ones(3, dtype=torch.int64)), ValueError, r"sizes .* got \[3\]"),
        (([EVERYTHING], torch.ones(3, 2)), TypeError, "sizes must be int64, got torch.float32"),
        (([EVERYTHING], torch.tensor([[2, -1]])), ValueError, r"from 1 to 16777216, got -1"),
        (([EVERYTHING], (1, 2, 2**24 + 1)), ValueError, "sizes .* to 16777216, got 16777217"),
        (([EVERYTHING], torch.tensor([[2, 2**25]] * 2)), ValueError, "16777216, got 33554432"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        draw(*arguments)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"mirror": 1.5}, ValueError, "mirror must be from 0 to 1, got 1.5"),
        ({"grey": -0.1}, ValueError, "grey must be from 0 to 1, got -0.1"),
        ({"hue": 0.6}, ValueError, "hue must be from 0 to 0.5, got 0.6"),
        ({"contrast": -1.0}, ValueError, "contrast must be from 0 to 1e.38, got -1.0"),
        ({"brightness": "much"}, TypeError, "brightness must be a number, got str"),
        ({"scale": (0.0, 1.0)}, ValueError, "scale must be above 0 and at most 1, smallest"),
        ({"scale": (0.5, 1.1)}, ValueError, "scale must be above 0 and at most 1, smallest"),
        ({"ratio": (2.0, 1.0)}, ValueError, "ratio must be above 0 and at most 1e.38, small"),
        ({"sigma": 2.0}, TypeError, "sigma must be two numbers"),
        ({"sigma": (1, 1e39)}, ValueError, "sigma must be above 0 and at most 1e.38, small"),
        ({"brightness": 1e39}, ValueError, "brightness must be from 0 to 1e.38, got 1e.39"),
        ({"brightness": 10**400}, ValueError, "brightness must be finite"),
        ({"middle": 0.0}, ValueError, "middle must be above 0 and at most 1, got 0"),
    ],
)
def test_bad_recipes_are_named(values, error, message):
    with pytest.raises(error, match=message):
        Recipe(**values)


def test_whole_numbers_and_lists_are_the_same_recipe():
    """Before the first call with floats, whose tables are kept, and after it."""
    whole = Recipe(scale=[1, 1], ratio=[1, 2], solarise=1, threshold=0, middle=1)
    fractions = Recipe(scale=(1.0, 1.0), ratio=(1.0, 2.0), solarise=1.0, threshold=0.0, middle=1.0)
    assert whole == fractions and hash(whole) == hash(fractions) and whole.scale == (1.0, 1.0)
    for recipe in (whole, fractions):
        found = draw([recipe], (2, 8, 9))
        assert found.dtype == torch.float32 and (found[..., 12] == 0).all()


def test_strength_multiplies_the_jitter_alone():
    recipe = views.SimCLR(224, strength=0.5).recipes[0]
    assert recipe == Recipe(
        mirror=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2,
        blur=0.5,
    )  # fmt: skip
    with pytest.raises(ValueError, match="hue must be from 0 to 0.5, got 0.6"):
        views.SimCLR(224, strength=3.0)
