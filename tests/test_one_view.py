"""The views of the methods that learn from one view have their papers' changes and no others."""

import pytest
import torch

from fastcl.pretrain.augment import Views
from fastcl.pretrain.inputs import Batch
from fastcl.pretrain.methods import ENTRIES

NUMBERS = torch.zeros(3), torch.ones(3)


def views_of(method, images):
    entry = ENTRIES[method]
    views = Views("photographs", images.shape[2], NUMBERS, recipes=entry.recipes)
    torch.manual_seed(0)
    return views(images)[0]


@pytest.mark.parametrize("method", ["cmc", "dim", "cpc", "moco"])
def test_colours_stay_what_they_are(method):
    """Of images of one colour each; CPC's are grey at times, MoCo's change in all ways."""
    colours = torch.randint(256, (200, 3, 1, 1), dtype=torch.uint8)
    x = views_of(method, colours.expand(-1, -1, 24, 24).contiguous())
    same = torch.isclose(x, colours / 255, atol=1e-4).flatten(1).all(1)
    grey = torch.isclose(x[:, :1], x, atol=1e-5).flatten(1).all(1)
    if method == "moco":  # the comparison sees a difference
        assert same.sum() < 60
    else:
        assert (same | grey).all()
        assert 20 < grey.sum() < 80 if method == "cpc" else same.all()


def test_deep_info_max_sees_the_whole_image_and_its_mirror():
    images = torch.randint(256, (40, 3, 24, 24), dtype=torch.uint8)
    x, whole = views_of("dim", images), images / 255
    same, mirrored = (
        torch.isclose(x, y, atol=1e-5).flatten(1).all(1) for y in (whole, whole.flip(3))
    )
    assert (same ^ mirrored).all() and 5 < mirrored.sum() < 35


def test_lightness_and_colour_of_cmc_are_of_one_view():
    images = torch.randint(256, (6, 3, 24, 24), dtype=torch.uint8)
    views = Views("photographs", 24, NUMBERS, recipes=ENTRIES["cmc"].recipes)
    (light, colour), index = ENTRIES["cmc"].inputs(views, Batch(images, torch.arange(6), None))
    assert light.shape == (6, 1, 24, 24) and colour.shape == (6, 2, 24, 24)
    assert torch.equal(index, torch.arange(6))
