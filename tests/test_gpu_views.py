"""Random views on a device, against the reference on the CPU; the same lines run on the CPU."""

import pytest
import torch
import view_cases as cases
from test_gpu import DEVICES
from test_random_views import TOLERANCE, check, in_reference

import fastcl.functional as F

# Height and width of the image, side of the view, taps of the blur.
SHAPES = {
    "cuda": ((1, 1, 1, 1), (1, 40, 8, 3), (15, 17, 7, 7), (33, 31, 257, 23), (375, 500, 224, 23)),
    "cpu": ((23, 31, 16, 7),),
}


@DEVICES
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_operations_and_chains(dtype, device):
    for h, w, size, taps in SHAPES[device]:
        x, g = cases.image(3, h, w, dtype, seed=h), torch.Generator().manual_seed(0)
        alone = [cases.record(h, w, **chosen) for chosen in cases.OPERATIONS.values()]
        parameters = torch.stack(alone + [cases.drawn(h, w, g) for _ in range(24)])
        ours = F.random_views(
            x[None].to(device), parameters[None].to(device), size=size, kernel=taps
        )[:, 0]
        expected = in_reference(x, parameters, size, taps)
        parts = slice(len(alone)), slice(len(alone), None)
        for part, tolerance in zip(parts, TOLERANCE[dtype], strict=True):
            check(ours[part].cpu(), expected[part], tolerance, parameters[part, -1])


@DEVICES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_images_of_any_size_and_the_same_bits_twice(dtype, device):
    images = [cases.image(3, 20 + 7 * k, 60 - 5 * k, seed=k) for k in range(6)]
    g = torch.Generator().manual_seed(1)
    parameters = torch.stack(
        [torch.stack([cases.drawn(*x.shape[1:], g) for _ in "12"]) for x in images]
    )
    options = {"size": 48, "kernel": 9, "memory_format": torch.channels_last}
    moved = [x.to(device) for x in images]
    first, second = (
        F.random_views(moved, parameters.to(device), dtype=dtype, **options) for _ in "12"
    )
    assert torch.equal(first, second) and first[0].is_contiguous(memory_format=torch.channels_last)
    for k, x in enumerate(images):
        expected = in_reference(x, parameters[k], 48, 9)
        rounding = torch.finfo(dtype).eps if dtype != torch.float32 else 0
        error = (first[:, k].cpu().float() - expected).abs()
        assert (error <= TOLERANCE[torch.uint8][1] + rounding).all()
