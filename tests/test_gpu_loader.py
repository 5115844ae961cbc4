"""Batches of a loader on a device are those on the CPU: their pinned memory is written again only
once it is copied; the same lines run on the CPU."""

import numpy as np
import pytest
import torch
from test_gpu import DEVICES

pytest.importorskip("spdl.pipeline")

from fastcl import views  # noqa: E402
from fastcl.data import Arrays, Loader, Order  # noqa: E402

SIDE = {"cuda": 224, "cpu": 16}


@DEVICES
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batches_are_those_of_the_cpu(device, layout):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 3, 40, 40), dtype=np.uint8)
    source, order = Arrays(pixels, np.arange(48)), Order(48, 16, seed=0)
    made = views.SimCLR(SIDE[device], memory_format=layout)
    loader = Loader(source, order, made, device=device)
    busy = torch.randn(1024, 1024, device=device)
    for batch in loader.batches(0, 0, 6):
        if device == "cuda":
            for _ in range(20):
                busy = busy @ busy
        images = [torch.from_numpy(pixels[i]) for i in batch.index.tolist()]
        expected = made(images, loader._generator(batch.epoch, batch.step))
        assert batch.images.device.type == batch.labels.device.type == device
        assert torch.equal(batch.images.cpu(), expected)
        assert torch.equal(batch.labels.cpu(), batch.index.cpu())
