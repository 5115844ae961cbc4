"""A small case of every kernel, for compute-sanitizer: `python tests/gpu_smoke.py [--device D]`.

Sizes straddle the tiles, so that a load or store beyond a border would be seen. `--few` are those
of bfloat16 at two widths, since the sanitizer is slow and so are compilers.
"""

import argparse

import torch

import fastcl
import fastcl.functional as F
from fastcl.contrast.node import row_losses
from fastcl.contrast.problem import problem

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--few", action="store_true")
options = parser.parse_args()
device = options.device

for dtype in (torch.bfloat16,) if options.few else (torch.bfloat16, torch.float16, torch.float32):
    # Narrow, ragged, own-row sums, by chunks.
    for d in (128, 520) if options.few else (16, 100, 136, 520):
        z = torch.randn(2, 150, d, device=device, dtype=dtype, requires_grad=True)
        image, text = z.unbind()
        queue = torch.randn(203, d, device=device, dtype=dtype)
        scale = torch.tensor(10.0, device=device, requires_grad=True)
        own = F.row_products(image, text.detach())
        guide = torch.randn(2, 150, 100, device=device, dtype=dtype).unbind()
        raw = {"scale": 0.1, "unit": False, "normalize": False}
        losses = (
            F.nt_xent(image, text),
            F.sup_con(image, torch.arange(150, device=device) % 7),
            F.clip(image, text, scale),
            F.siglip(image, text, scale, torch.tensor(-3.0, device=device, requires_grad=True)),
            F.info_nce(image, text),
            F.moco(image, text, queue),
            F.contrast(image, text, margin=0.0),
            F.contrast(image, text.detach(), margin=0.0),
            F.contrast(image, text, guide=guide),
            row_losses(  # rows that are not unit: the running maximum
                problem(image, text, ids=torch.arange(150, device=device), **raw)
            ).loss.sum(),
            row_losses(  # constant columns, with the rank of the positive
                problem(image, queue, own=text.detach(), **raw), pivot=own
            ).loss.sum(),
        )
        for loss in losses:
            loss.backward()
            assert loss.isfinite(), (dtype, d)
    for normalize in (False, True):
        ring = fastcl.Queue(101, 37, device=device, dtype=dtype)
        for rows in (1, 64, 130):
            ring.push(torch.randn(rows, 37, device=device))
        pointer = torch.zeros((), dtype=torch.int64, device=device)
        F.queue_push_(ring.rows, pointer, torch.randn(55, 37, device=device), normalize=normalize)
    images = torch.randint(0, 256, (3, 3, 41, 53), device=device, dtype=torch.uint8)
    drawn = [4, 5, 30, 40, 1, 1.2, 0.7, 1.3, 0.1, 13, 0, 1.5, 0.8]
    drawn = torch.tensor(drawn, device=device).expand(3, 2, 13)
    assert F.random_views(images, drawn, size=37, kernel=9, dtype=dtype).isfinite().all()
    shapes = ((3, 5), (8193,), (), (17,))
    target = [torch.randn(s, device=device).to(dtype) for s in shapes]
    F.momentum_update_(target, [torch.randn(s, device=device) for s in shapes], 0.9)
if device == "cuda":
    torch.cuda.synchronize()
print("every kernel ran")
