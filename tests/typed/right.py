"""A user's file that a type checker takes as it is, by `mypy --strict`."""

from typing import assert_type

import torch
from torch import Tensor, nn

import fastcl
from fastcl import distributed, functional, losses, methods
from fastcl.compat import open_clip


def step(z0: Tensor, z1: Tensor, labels: Tensor) -> Tensor:
    assert_type(functional.nt_xent(z0, z1, temperature=0.5), Tensor)
    assert_type(functional.nt_xent(z0, z1, temperature=torch.tensor(0.5)), Tensor)
    assert_type(functional.sup_con(torch.cat([z0, z1]), labels.repeat(2)), Tensor)
    assert_type(functional.contrast(z0, z1, labels=(labels, labels), reduction="none"), Tensor)
    assert_type(distributed.clip(z0, z1, torch.tensor(10.0)), Tensor)
    return functional.info_nce(z0, z1, z1, temperature=0.1)


def state() -> None:
    queue = fastcl.Queue(1024, 16)
    queue.push(torch.randn(3, 16))
    assert_type(queue.rows, Tensor)
    twin = fastcl.Momentum(nn.Linear(4, 4))
    twin.update()
    fastcl.patch("open_clip")


def modules(image: Tensor, text: Tensor) -> None:
    method = methods.SimCLR(nn.Linear(32, 16), width=16)
    assert_type(method.forward(image, text), Tensor)
    assert_type(losses.NTXentLoss(temperature=0.5).forward(image, text), Tensor)
    clip = open_clip.ClipLoss()
    assert_type(clip.forward(image, text, 10.0), Tensor)
    assert_type(clip.forward(image, text, 10.0, output_dict=True), dict[str, Tensor])
    assert_type(
        clip.forward(image, text, 10.0, output_dict=bool(len(image))), Tensor | dict[str, Tensor]
    )
