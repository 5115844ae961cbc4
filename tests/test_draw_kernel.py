"""The kernel that makes parameters of random numbers, beside the reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.memory import growth
from fastcl import reference
from fastcl._library import ops
from fastcl.reference.draw_views import middle_box
from fastcl.views import BYOL, DINO, Evaluation, Recipe, draw
from fastcl.views.draw import _bounds, uniform

RECIPES = (
    *BYOL.RECIPES, DINO.SMALL, *Evaluation.RECIPES,
    Recipe(ratio=(0.9, 3.0), jitter=0.5, contrast=3.0, hue=0.5, solarise=1.0, middle=0.01),
    Recipe(scale=(1.0, 1.0), ratio=(1e-3, 1e3), blur=1.0, sigma=(1e-3, 50.0)),
)  # fmt: skip
CPU = torch.device("cpu")


def arguments(sizes, seed=0, recipes=RECIPES):
    """Of the operator, for images of these sizes."""
    numbers = uniform(len(sizes), len(recipes), torch.Generator().manual_seed(seed))
    return numbers.transpose(0, 1).contiguous(), sizes, None, *_bounds(tuple(recipes), CPU)


def doubtful(numbers, sizes, low, span):
    """Where the side of a try is so close to a half that float may round it either way `[b, V]`."""
    x = (low.double() + span.double() * numbers.double()).split([10, 10, 13])
    area, stretch = x[0] * sizes.prod(1).double().unsqueeze(1), x[1].exp()
    tried = torch.stack([area / stretch, area * stretch]).sqrt()
    return ((tried % 1 - 0.5).abs() < 2e-6 * tried).any(0).any(0)


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=20),
       st.integers(0, 2**31 - 1))  # fmt: skip
def test_the_kernel_is_the_reference(sizes, seed):
    numbers, sizes, _, *bounds = arguments(torch.tensor(sizes), seed)
    found = ops.draw_views(numbers, sizes, None, *bounds)
    expected = reference.draw_views(numbers, sizes, None, *bounds)
    assert torch.equal(found[..., 4:], expected[..., 4:])
    sure = ~doubtful(numbers, sizes, *bounds[:2])
    assert torch.equal(found[..., :4][sure], expected[..., :4][sure])


def test_few_boxes_are_in_doubt():
    numbers, sizes, _, low, span, *_ = arguments(torch.tensor([[375, 500]] * 2000))
    assert doubtful(numbers, sizes, low, span).float().mean() < 0.05


@pytest.mark.parametrize("b", [1, 7])
def test_images_of_one_size_are_so_many(b):
    numbers, sizes, _, *bounds = arguments(torch.tensor([[30, 40]] * b))
    middle = middle_box(sizes[:1], *bounds[2::2])
    expected = ops.draw_views(numbers, sizes, None, *bounds)
    for given_middle in (None, middle):
        found = ops.draw_views(numbers, sizes[:1], given_middle, *bounds)
        assert torch.equal(found, expected)


def test_numbers_at_both_ends():
    numbers, *rest = arguments(torch.tensor([[1, 1], [7, 3000], [3000, 7], [224, 224]]))
    for u in (0.0, 1 - 2**-24):
        found = ops.draw_views(torch.full_like(numbers, u), *rest)
        assert torch.equal(found, reference.draw_views(torch.full_like(numbers, u), *rest))
        assert (found[..., 9] == (0 if u == 0 else 23)).all()


def test_the_operator_is_registered():
    torch.library.opcheck(ops.draw_views, arguments(torch.tensor([[30, 40]] * 3)))
    torch.library.opcheck(ops.draw_views, arguments(torch.tensor([[3, 4]]), recipes=BYOL.RECIPES))


def test_the_reference_reads_nothing_on_the_host():
    # A meta tensor has no values: looking at one is an error.
    for sizes in ([[30, 40]], [[30, 40]] * 3):
        meta = [None if x is None else x.to("meta") for x in arguments(torch.tensor(sizes))]
        assert reference.draw_views(*meta).shape == (len(sizes), len(RECIPES), 13)


def test_numbers_of_a_part_may_lie_anywhere():
    whole = uniform(5, 3, torch.Generator().manual_seed(1))
    part = whole[1:4].split([1, 2], 2)[1]
    made = draw(BYOL.RECIPES, (3, 30, 40), chances=part)
    assert torch.equal(made, draw(BYOL.RECIPES, (3, 30, 40), chances=part.clone()))


def test_nothing_beside_the_parameters():
    b = 100_000
    given = arguments(torch.tensor([[300, 400]] * b), recipes=BYOL.RECIPES)
    ops.draw_views(*given)
    parameters = b * 2 * 13 * 4
    assert growth(lambda: ops.draw_views(*given)) < 1.4 * parameters
