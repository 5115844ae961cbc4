"""Every pretext task is learned."""

import math

import pytest
import torch
from torch import nn

from fastcl import pretext


def scenes(b=64, side=16):
    """A bright sky over dark ground; warm above, cool below."""
    height = torch.linspace(0, 1, side).view(1, 1, side, 1).expand(b, 3, side, side)
    tint = torch.tensor([0.9, 0.5, 0.1]).view(1, 3, 1, 1)
    x = (1 - height) * tint + height * tint.flip(1)
    across = torch.linspace(0, 0.4, side).view(1, 1, 1, side)
    return (0.7 * x + across + 0.05 * torch.randn(b, 3, side, side)).clamp(0, 1)


def network(channels, pooled=True):
    layers = [
        nn.Conv2d(channels, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
    ]  # fmt: skip
    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()] if pooled else []
    return nn.Sequential(*layers, *pool)


def video(b=24, side=8):
    """A dot that crosses the picture, from left to right."""
    place = torch.arange(5) * 1.5 + 0.5 * torch.rand(b, 1)
    columns = torch.arange(side)
    dot = torch.exp(-((columns - place[..., None]) ** 2))
    return dot[:, :, None, None, :].expand(b, 5, 1, side, side)


# Task, batch, and what blind guessing costs: log of the classes, or the variance of the pixels.
LEARNING = {
    "rotation": (
        lambda: pretext.Rotation(network(3), width=96), lambda: scenes(16), math.log(4)
    ),
    "jigsaw": (
        lambda: pretext.Jigsaw(network(3), width=96, grid=2, permutations=24, hidden=64, gray=0),
        scenes, math.log(24),
    ),
    "relative_patch": (
        lambda: pretext.RelativePatch(network(3), width=24 * 4, patch=3, hidden=64),
        lambda: scenes(256), math.log(8),
    ),
    "colorization": (
        lambda: pretext.Colorization(network(1, False), width=24), lambda: scenes(16),
        math.log(259),
    ),
    "split_brain": (
        lambda: pretext.SplitBrain(network(1, False), network(2, False), width=24),
        lambda: scenes(16), math.log(259) + math.log(50),
    ),
    "inpainting": (
        lambda: pretext.Inpainting(network(3, False), width=24, size=16),
        lambda: (scenes(32) - 0.5) / 0.25, 1.0,
    ),
    "temporal_order": (
        lambda: pretext.TemporalOrder(network(1), width=96), video, math.log(3) - math.log(4) / 3
    ),
    "time_contrastive": (
        lambda: pretext.TimeContrastive(network(1), width=96, window=2),
        lambda: video(1)[0].repeat(1, 1, 1, 1), 0.2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNING)
def test_learns(name):
    build, batch, chance = LEARNING[name]
    task = build()
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss = task(batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < 0.7 * chance, f"{losses[0]:.3f} to {losses[-1]:.3f}"


def test_skip_gram_learns_which_words_go_together():
    """Words 2i and 2i + 1 always stand together."""
    task = pretext.SkipGram(torch.ones(20), width=16)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.05)
    pairs = torch.arange(20).view(10, 2)
    center, context = torch.cat([pairs, pairs.flip(1)]).T
    before = task(center, context).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = task(center, context)
        loss.backward()
        optimizer.step()
    assert before == pytest.approx(6 * math.log(2)) and loss.item() < 0.5 * before
    assert torch.equal((task.vectors @ task.contexts.T).argmax(1)[center], context)
