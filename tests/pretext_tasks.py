"""Pretext tasks around tiny networks, and batches for them."""

import torch
from hypothesis import strategies as st
from torch import nn

from fastcl import pretext

SEEDS = st.integers(0, 2**31 - 1)
SIDES = st.integers(6, 20)


def maps(channels, width=6):
    """Feature maps at half the side; no batch normalisation, so that parts may be run apart."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.Tanh())


def vectors(channels, width=6):
    return nn.Sequential(maps(channels, width), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def images(b=3, channels=3, side=16):
    return torch.rand(b, channels, side, side, dtype=torch.float64)


TASKS = {
    "rotation": (lambda: pretext.Rotation(vectors(3), width=6), images),
    "jigsaw": (lambda: pretext.Jigsaw(vectors(3), width=6, hidden=9, permutations=10), images),
    "relative_patch": (lambda: pretext.RelativePatch(vectors(3), width=6, hidden=9), images),
    "colorization": (lambda: pretext.Colorization(maps(1), width=6), images),
    "split_brain": (lambda: pretext.SplitBrain(maps(1), maps(2), width=6), images),
    "inpainting": (lambda: pretext.Inpainting(maps(3), width=6, size=16), images),
    "temporal_order": (
        lambda: pretext.TemporalOrder(vectors(3), width=6),
        lambda: torch.rand(3, 5, 3, 8, 8, dtype=torch.float64),
    ),
    "time_contrastive": (
        lambda: pretext.TimeContrastive(vectors(3), width=6, window=3),
        lambda: torch.rand(2, 9, 3, 8, 8, dtype=torch.float64),
    ),
}


def value_and_gradients(task, loss):
    task.zero_grad()
    value = loss()
    value.backward()
    return value.detach(), [p.grad.clone() for p in task.parameters()]
