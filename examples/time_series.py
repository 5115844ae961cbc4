"""Time series from two crops each: `python examples/time_series.py [--plot FILE]`.

Two crops of every series overlap. An instant of the overlap in one crop is the positive of the
same instant in the other, all other instants of all series are negatives; then neighbours are
pooled in pairs, and again, until one instant is left. The first level has 32 x 64 instants from
each crop, and the usual code a matrix of 4,096 x 4,096 for it; `nt_xent` forms none.

Source: Yue et al. 2022, "TS2Vec: Towards Universal Representation of Time Series"
(arXiv 2106.10466), section 3; its two losses, over time and over series, are one here. The series
are drawn here: two waves that repeat at another rate in every class, under noise and a drift.
"""

import argparse

import torch
from torch import Tensor, nn

from fastcl.functional import nt_xent

CLASSES, SERIES, LENGTH, CROP, OVERLAP, BATCH = 8, 512, 128, 96, 64, 32


def draw_series() -> tuple[Tensor, Tensor]:
    """Series `[SERIES, 1, LENGTH]` and their classes."""
    label = torch.arange(SERIES) % CLASSES
    t = torch.arange(LENGTH)
    phase = 2 * torch.pi * torch.rand(2, SERIES, 1)
    slow, fast = 0.1 + 0.05 * (label % 4)[:, None], 0.9 + 0.25 * (label // 4)[:, None]
    x = torch.sin(slow * t + phase[0]) + torch.sin(fast * t + phase[1])
    drift = torch.randn(SERIES, LENGTH).cumsum(1) / 10
    return (x + drift + torch.randn(SERIES, LENGTH) / 2)[:, None], label


class Encoder(nn.Module):
    """Dilated convolutions with shortcuts: every instant sees 63 around it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4, 8, 16)
        )

    def forward(self, x: Tensor) -> Tensor:  # [b, 1, t] -> [b, width, t]
        h = self.first(x)
        for layer in self.layers:
            h = h + layer(nn.functional.gelu(h))
        return h


def hierarchical(z0: Tensor, z1: Tensor) -> Tensor:  # [b, d, t] each, of the same instants
    """The mean over the levels of pooling."""
    losses = []
    while True:
        rows = [z.transpose(1, 2).flatten(0, 1) for z in (z0, z1)]
        losses.append(nt_xent(*rows, temperature=0.2))
        if z0.shape[2] == 1:
            return torch.stack(losses).mean()
        z0, z1 = (nn.functional.max_pool1d(z, 2) for z in (z0, z1))


def overlapping(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features of the instants that two crops share, with other amplitudes in each."""
    shift = CROP - OVERLAP
    start = int(torch.randint(LENGTH - CROP - shift + 1, ()))
    first, second = (x[:, :, s : s + CROP] for s in (start, start + shift))
    scaled = [c * (1 + 0.2 * torch.randn(len(c), 1, 1)) for c in (first, second)]
    z0, z1 = (encoder(c) for c in scaled)
    return z0[:, :, shift:], z1[:, :, :OVERLAP]


@torch.no_grad()
def features(encoder: nn.Module, x: Tensor) -> Tensor:
    """One row per series: the largest of every feature over time."""
    return encoder(x).amax(2)


@torch.no_grad()
def accuracy(z: Tensor, label: Tensor) -> float:
    """Of a linear classifier by least squares from an eighth of the series, on the others."""
    z = (z - z.mean(0)) / z.std(0)
    z = torch.cat([z, torch.ones(len(z), 1)], 1)
    few = SERIES // 8
    known, targets = z[:few], nn.functional.one_hot(label[:few], CLASSES).float()
    ridge = known.T @ known + torch.eye(z.shape[1])
    found = z[few:] @ torch.linalg.solve(ridge, known.T @ targets)
    return (found.argmax(1) == label[few:]).float().mean().item()


def plot(path: str, parts: dict[str, Tensor], label: Tensor) -> None:
    """Two principal directions of each matrix, series coloured by their class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (title, z) in zip(figure.subplots(1, len(parts)), parts.items(), strict=True):
        z = nn.functional.normalize(z - z.mean(0), dim=1)
        x, y = (z @ torch.linalg.svd(z, full_matrices=False).Vh[:2].T).T
        axes.scatter(x, y, s=3, c=label, cmap="tab10")
        axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--plot", metavar="FILE", help="picture of the series; needs matplotlib")
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    x, label = draw_series()
    encoder = Encoder()
    untrained = features(encoder, x)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=6e-3)
    for step in range(asked.steps):
        loss = hierarchical(*overlapping(encoder, x[torch.randperm(SERIES)[:BATCH]]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:2}: loss {loss.item():.4f}", flush=True)
    trained = features(encoder, x)
    before, after = accuracy(untrained, label), accuracy(trained, label)
    print(f"last loss {loss.item():.4f}")
    print(f"accuracy {accuracy(x[:, 0], label):.3f} of the series, {before:.3f} untrained, "
          f"{after:.3f}")  # fmt: skip
    if asked.plot:
        plot(asked.plot, {"series": x[:, 0], "untrained": untrained, "trained": trained}, label)
    assert after > before
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
