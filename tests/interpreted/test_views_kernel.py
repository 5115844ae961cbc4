"""Random views in one launch, against the reference and within the bounds of every operation."""

import sys
from pathlib import Path

import pytest
import torch

from fastcl import reference
from fastcl.kernels import random_views as views

sys.path.append(str(Path(__file__).parent.parent))
import view_cases as cases  # noqa: E402
from test_random_views import TOLERANCE, check, in_reference  # noqa: E402


@pytest.fixture
def kernel(monkeypatch):
    """The launcher with small blocks, few programs and poisoned memory."""
    import device

    card = device.hopper()
    card.multi_processor_count = 2
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(views, "BLOCK", 64)
    monkeypatch.setattr(views, "WIDEST", 8)
    monkeypatch.setattr(views, "BLUR_BLOCK", 128)
    monkeypatch.setattr(views.common, "empty", device.poisoned)
    return views.random_views


def of_one(kernel, x, parameters, size, taps, dtype=torch.float32):
    """Views of one image `[V, c, size, size]`, not normalised."""
    c = len(x)
    zeros, ones = torch.zeros(c), torch.ones(c)
    return kernel(
        x[None], None, None, parameters[None], size, taps, zeros, ones, dtype, False, False
    )[:, 0]


# Float images with a bound of 1e-5 see most; the other dtypes are only read and scaled otherwise.
FIRST, *SIDES = (14, 19, 11, 7), (1, 1, 1, 1), (5, 4, 12, 5), (9, 40, 12, 23), (24, 3, 9, 5)
DTYPES = torch.float32, torch.uint8, torch.uint16
SLOW = [(*sides, torch.float32) for sides in SIDES] + [(*SIDES[1], x) for x in DTYPES[1:]]


@pytest.mark.parametrize(
    "h,w,size,taps,dtype",
    [(*FIRST, torch.float32), *(pytest.param(*x, marks=pytest.mark.slow) for x in SLOW)],
)
def test_operations_and_chains(kernel, h, w, size, taps, dtype):
    alone = [cases.record(h, w, **chosen) for chosen in cases.OPERATIONS.values()]
    check_views(kernel, h, w, size, taps, dtype, alone, 12)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_bytes_and_words(kernel, dtype):
    """The whole image as it is, and everything that may happen."""
    check_views(kernel, 9, 13, 11, 7, dtype, [cases.record(9, 13)], 6)


def check_views(kernel, h, w, size, taps, dtype, alone, chains):
    x, g = cases.image(3, h, w, dtype, seed=h), torch.Generator().manual_seed(0)
    parameters = torch.stack(alone + [cases.drawn(h, w, g) for _ in range(chains)])
    ours, expected = (
        of_one(kernel, x, parameters, size, taps),
        in_reference(x, parameters, size, taps),
    )
    for part, tolerance in zip(
        (slice(len(alone)), slice(len(alone), None)), TOLERANCE[dtype], strict=True
    ):
        check(ours[part], expected[part], tolerance, parameters[part, -1])


@pytest.mark.slow
def test_every_order(kernel):
    """Factors of which no two operations can change places unnoticed."""
    x = cases.image(3, 7, 8)
    factors = {"brightness": 1.6, "contrast": 0.4, "saturation": 1.8, "hue": 0.23}
    parameters = torch.stack([cases.record(7, 8, order=k, **factors) for k in range(24)])
    expected = in_reference(x, parameters, 12, 1)
    check(
        of_one(kernel, x, parameters, 12, 1), expected, TOLERANCE[torch.uint8][1], parameters[:, -1]
    )


@pytest.mark.parametrize(
    "dtype, last_out",
    [
        (torch.bfloat16, True),
        *(
            pytest.param(*of, marks=pytest.mark.slow)
            for of in ((torch.float32, False), (torch.bfloat16, False), (torch.float16, True))
        ),
    ],
)  # fmt: skip
def test_layouts_and_normalisation(kernel, dtype, last_out):
    """A batch in both layouts, and the same images end to end."""
    images = torch.stack([cases.image(3, 7, 8, seed=k) for k in range(2)])
    g = torch.Generator().manual_seed(2)
    parameters = torch.stack([
        torch.stack([cases.drawn(7, 8, g) for _ in range(2)]) for _ in range(2)
    ])  # fmt: skip
    mean, deviation = torch.tensor(cases.MEAN), torch.tensor(cases.DEVIATION)
    rest = parameters, 11, 5, mean, deviation
    exact = reference.random_views(images, None, None, *rest, torch.float32, False, last_out)
    last = images.permute(0, 2, 3, 1).contiguous()
    offsets, sizes = torch.arange(2) * images[0].numel(), torch.tensor([[7, 8]] * 2)
    for x, where, inside, last_in in (
        (images, None, None, False), (last, None, None, True),
        (last.view(-1, 3), offsets, sizes, False),
    ):  # fmt: skip
        ours = kernel(x, where, inside, *rest, dtype, last_in, last_out)
        assert ours.dtype == dtype and ours.shape == exact.shape
        error = (ours.float() - exact).abs()
        bound = 0.25 / 255 / 0.22 + torch.finfo(dtype).eps * exact.abs()
        assert (error <= bound).all()


@pytest.mark.parametrize("c", [1, *(pytest.param(c, marks=pytest.mark.slow) for c in (2, 4))])
def test_channels(kernel, c):
    """Of other than three channels the colours stay as they are, whatever the factors say."""
    x = cases.image(c, 11, 8)
    chosen = [{}, {"mirror": 1}, {"sigma": 1.2}, {"threshold": 0.4, "sigma": 0.5}]
    parameters = torch.stack([cases.record(11, 8, **one) for one in chosen])
    expected = in_reference(x, parameters, 9, 5)
    coloured = parameters.clone()
    coloured[:, 5:8], coloured[:, 10] = 0.3, 1
    for given in (parameters, coloured):
        check(of_one(kernel, x, given, 9, 5), expected, TOLERANCE[torch.uint8][0], given[:, -1])


def test_levels_at_the_threshold_are_inverted(kernel):
    """Where nothing else happens pixels are as exact as bytes."""
    x = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    plain = torch.arange(256, dtype=torch.int32)
    for level in (0, 1, 100, 128, 254, 255):
        parameters = cases.record(16, 16, threshold=level / 255)[None]
        levels = of_one(kernel, x, parameters, 16, 1).mul(255).round().view(256).int()
        assert torch.equal(levels, torch.where(plain >= level, 255 - plain, plain))


def test_what_is_out_of_range_reads_no_other_memory(kernel):
    """Parameters, offsets and sizes that nobody looked at are limited."""
    x = torch.full((12, 3), 7, dtype=torch.uint8)
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e9, -5.0])
    parameters = bad[:, None].expand(5, 13).reshape(5, 1, 13).contiguous()
    parameters[:, :, 12] = 2
    offsets, sizes = torch.tensor([0, -9, 10**12, 33, 3]), torch.tensor([[4, 3]] * 4 + [[2**40, 7]])
    zeros, ones = torch.zeros(3), torch.ones(3)
    ours = kernel(x, offsets, sizes, parameters, 4, 3, zeros, ones, torch.float32, False, False)
    assert ours.shape == (1, 5, 3, 4, 4)
    assert ((ours >= 0) & (ours <= 1)).all()
