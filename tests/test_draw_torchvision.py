"""The drawn parameters beside those that torchvision draws."""

import pytest
import torch
from scipy import stats
from view_cases import NAMES

from fastcl.views import Recipe, draw

transforms = pytest.importorskip("torchvision.transforms")

N = 1500
LEAST_P = 1e-4  # of one of the tests; the seeds are fixed


def drawn(recipe, h, w):
    x = draw([recipe], (N, h, w), generator=torch.Generator().manual_seed(0))
    return dict(zip(NAMES, x[:, 0].double().numpy().T, strict=True))


@pytest.mark.parametrize("sides", [(375, 500), (64, 64), (32, 32), (100, 160), (100, 600), (3, 4)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.14), (0.8, 1.0)])
def test_crops(sides, scale):
    ours = drawn(Recipe(scale=scale), *sides)
    torch.manual_seed(1)
    image, ratio = torch.empty(1, *sides), [3 / 4, 4 / 3]
    get = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([get(image, list(scale), ratio) for _ in range(N)]).double().numpy()
    p = {
        name: stats.ks_2samp(ours[name], theirs[:, k]).pvalue
        for k, name in enumerate(("top", "left", "height", "width"))
    }
    product = stats.ks_2samp(ours["height"] * ours["width"], theirs[:, 2] * theirs[:, 3]).pvalue
    assert min(product, *p.values()) > LEAST_P, p


def test_colours():
    ours = drawn(Recipe(jitter=1.0, brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1), 8, 8)
    jitter = transforms.ColorJitter(0.4, 1.5, 0.2, 0.1)
    ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    torch.manual_seed(1)
    theirs = [jitter.get_params(*ranges) for _ in range(N)]
    names = "brightness", "contrast", "saturation", "hue"
    p = [
        stats.ks_2samp(ours[name], [x[1 + k] for x in theirs]).pvalue
        for k, name in enumerate(names)
    ]
    # Places of the four in the order: brightness first is 0 to 5, and so on.
    first = torch.stack([x[0] for x in theirs])[:, 0].bincount(minlength=4)
    mine = torch.from_numpy(ours["order"]).div(6, rounding_mode="floor").int().bincount(minlength=4)
    p.append(stats.chi2_contingency(torch.stack([first, mine]).numpy()).pvalue)
    assert min(p) > LEAST_P, p
