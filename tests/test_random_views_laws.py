"""Laws of random views that hold for any image, by hypothesis."""

import pytest
import torch
import view_cases as cases
from hypothesis import given
from hypothesis import strategies as st

import fastcl.functional as F

SIDES = st.integers(1, 40)
SEEDS = st.integers(0, 2**31 - 1)
LEVEL = 1 / 255
ROUNDING = {torch.uint8: 0.1 * LEVEL, torch.float32: 1e-5}
dtypes = pytest.mark.parametrize("dtype", ROUNDING, ids=str)


def view(x, size, **chosen):
    parameters = cases.record(*x.shape[1:], **chosen)
    return F.random_views(x[None], parameters[None, None], size=size, kernel=1)[0, 0]


@dtypes
@given(h=SIDES, w=SIDES, size=SIDES, seed=SEEDS)
def test_identity_gives_the_resized_image(dtype, h, w, size, seed):
    x = cases.image(3, h, w, dtype, seed)
    expected = torch.nn.functional.interpolate(
        x[None] / (255 if dtype == torch.uint8 else 1), (size, size), mode="bilinear",
        antialias=True,
    )[0]  # fmt: skip
    torch.testing.assert_close(view(x, size), expected, atol=ROUNDING[dtype], rtol=0)


@given(side=SIDES, seed=SEEDS)
def test_an_image_of_the_size_of_the_view_stays_as_it_is(side, seed):
    x = cases.image(3, side, side, seed=seed)
    assert torch.equal(view(x, side).mul(255).round().to(torch.uint8), x)
    assert torch.equal(view(x / 255, side), x / 255)


@dtypes
@given(h=SIDES, w=SIDES, size=SIDES, seed=SEEDS)
def test_mirrored_twice_is_nothing(dtype, h, w, size, seed):
    x = cases.image(3, h, w, dtype, seed)
    twice = view(x.flip(-1), size, mirror=1)
    torch.testing.assert_close(twice, view(x, size), atol=ROUNDING[dtype], rtol=0)


@dtypes
@given(size=SIDES, seed=SEEDS, turns=st.floats(0, 0.5))
def test_hue_comes_back_after_a_full_turn(dtype, size, seed, turns):
    x = cases.image(3, 20, 30, dtype, seed)
    half = view(x, size, hue=turns)
    rest = view(half, size, hue=-turns) if turns < 0.25 else view(
        view(half, size, hue=0.5), size, hue=0.5 - turns
    )  # fmt: skip
    torch.testing.assert_close(rest, view(x, size), atol=3 * ROUNDING[dtype], rtol=0)


@dtypes
@given(h=SIDES, size=SIDES, seed=SEEDS, hue=st.floats(-0.5, 0.5), order=st.integers(0, 23),
       saturation=st.floats(0, 3))  # fmt: skip
def test_grey_stays_grey(dtype, h, size, seed, hue, order, saturation):
    x = cases.image(1, h, 9, dtype, seed).expand(3, h, 9)
    y = view(x, size, hue=hue, saturation=saturation, order=order)
    # torchvision's weights of grey sum to 0.9999.
    tolerance = ROUNDING[dtype] + 1.1e-4 * (1 + saturation)
    torch.testing.assert_close(y, y[:1].expand_as(y), atol=tolerance, rtol=0)
    torch.testing.assert_close(y, view(x, size), atol=tolerance, rtol=0)


@dtypes
@given(h=SIDES, w=SIDES, size=SIDES, seed=SEEDS)
def test_no_brightness_is_black(dtype, h, w, size, seed):
    assert (view(cases.image(3, h, w, dtype, seed), size, brightness=0) == 0).all()


@dtypes
@given(h=SIDES, w=SIDES, size=SIDES, level=st.integers(0, 255), sigma=st.floats(0, 5))
def test_one_colour_stays_that_colour(dtype, h, w, size, level, sigma):
    x = torch.full((1, h, w), level, dtype=torch.uint8)
    x = x if dtype == torch.uint8 else x / 255
    parameters = cases.record(h, w, sigma=sigma)
    y = F.random_views(x[None], parameters[None, None], size=size, kernel=2 * size - 1)
    torch.testing.assert_close(y, torch.full_like(y, level / 255), atol=2 * ROUNDING[dtype], rtol=0)
