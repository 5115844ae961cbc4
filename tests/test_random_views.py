"""Random views beside torchvision's functions in float."""

from pathlib import Path

import numpy as np
import pytest
import torch
import view_cases as cases
from remembered import remembered

import fastcl.functional as F
from fastcl import reference

GOLDEN = Path(__file__).parent / "golden" / "random_views.npz"
LEVEL = 1 / 255
# Of one operation and of a chain, by the dtype of the images.
TOLERANCE = {torch.uint8: (0.1 * LEVEL, 0.25 * LEVEL), torch.float32: (1e-5, 1e-5)}
TOLERANCE[torch.uint16] = TOLERANCE[torch.float32]
SIDES = ((23, 31, 16, 7), (9, 40, 17, 23), (5, 4, 12, 5))  # height, width, of the view, taps


def in_reference(x, parameters, size, kernel):
    """Views of one image `[V, c, size, size]`."""
    c = x.shape[0]
    ones = torch.ones(c)
    return remembered(
        reference.random_views, x[None], None, None, parameters[None], size, kernel, 0 * ones, ones,
        torch.float32, False, False,
    )[:, 0]  # fmt: skip


def check(views, expected, tolerance, thresholds):
    """Within the tolerance; an inverted pixel may be one whose value is that near the threshold."""
    threshold = thresholds.view(-1, 1, 1, 1)
    other = (1 - views - expected).abs()
    near = ((expected - threshold).abs() <= tolerance) | (
        (1 - expected - threshold).abs() <= tolerance
    )
    apart = torch.where(near & (threshold <= 1), other, torch.inf).minimum((views - expected).abs())
    worst = apart.flatten(1).amax(1)
    assert (worst <= tolerance).all(), worst.div(LEVEL).tolist()


@pytest.mark.parametrize("number", range(3))
def test_golden(number):
    stored = np.load(GOLDEN)
    x, parameters, expected, kernel = (
        torch.from_numpy(stored[f"{number}/{name}"])
        for name in ("image", "parameters", "views", "kernel")
    )
    arguments = parameters, expected.shape[-1], int(kernel)
    torch.testing.assert_close(in_reference(x, *arguments), expected, atol=1e-5, rtol=0)
    for dtype, tolerances in TOLERANCE.items():
        if dtype == torch.uint16:
            y = (x.int() * 257).to(dtype)
        else:
            y = x if dtype == torch.uint8 else x / 255
        views = F.random_views(y[None], parameters[None], size=arguments[1], kernel=arguments[2])
        alone = len(cases.OPERATIONS)
        for part, tolerance in zip((slice(alone), slice(alone, None)), tolerances, strict=True):
            check(views[part, 0], expected[part], tolerance, parameters[part, -1])


@pytest.mark.parametrize("h, w, size, kernel", SIDES)
def test_torchvision(h, w, size, kernel):
    pytest.importorskip("torchvision", exc_type=Exception)
    x = cases.image(3, h, w, torch.float32, seed=5)
    g = torch.Generator().manual_seed(1)
    parameters = [cases.record(h, w, **chosen) for chosen in cases.OPERATIONS.values()]
    parameters = torch.stack(parameters + [cases.drawn(h, w, g) for _ in range(50)])
    expected = torch.stack([cases.torchvision_view(x, p, size, kernel) for p in parameters])
    views = in_reference(x, parameters, size, kernel)
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)
