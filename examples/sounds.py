"""Sounds from two excerpts each: `python examples/sounds.py [--plot FILE]`.

Two excerpts of a clip are played at speeds of their own, which moves their pitch, and become log
spectrograms of which bands of frequencies and of time are left out; a small network makes a row
of each, and NT-Xent pulls the two rows of a clip together.

Sources: Saeed et al. 2021, "Contrastive Learning of General-Purpose Audio Representations" (two
excerpts of a clip); Park et al. 2019, "SpecAugment" (bands left out). The clips are drawn here: a
tone of any pitch and loudness under noise, whose overtones and tremolo tell the instrument.
"""

import argparse

import torch
from torch import Tensor, nn

from fastcl.functional import nt_xent

INSTRUMENTS, CLIPS, RATE, LENGTH, EXCERPT, BATCH = 8, 768, 8000, 8192, 4096, 128
BINS = 129


def draw_clips() -> tuple[Tensor, Tensor]:
    """Clips `[CLIPS, LENGTH]` and their instruments."""
    label = torch.arange(CLIPS) % INSTRUMENTS
    overtones = torch.rand(INSTRUMENTS, 10).pow(3) / torch.arange(1, 11) ** 0.5
    tremolo = 2.0 + 2 * torch.arange(INSTRUMENTS)
    t = torch.arange(LENGTH) / RATE
    pitch = 150 * 2 ** torch.rand(CLIPS)  # within an octave
    loud = 0.3 + torch.rand(CLIPS)
    x = torch.zeros(CLIPS, LENGTH)
    for k in range(10):
        phase = 2 * torch.pi * torch.rand(CLIPS, 1)
        wave = torch.sin(2 * torch.pi * (k + 1) * pitch[:, None] * t + phase)
        x += overtones[label, k, None] * wave
    swing = torch.sin(2 * torch.pi * tremolo[label, None] * t + 6 * torch.rand(CLIPS, 1))
    return loud[:, None] * (1 + 0.4 * swing) * x + 0.2 * torch.randn(CLIPS, LENGTH), label


def spectrogram(x: Tensor) -> Tensor:  # [b, samples] -> [b, 1, BINS, frames]
    window = torch.hann_window(2 * (BINS - 1))
    power = torch.stft(x, len(window), 128, window=window, return_complex=True).abs().square()
    return (power + 1e-3).log()[:, None]


def excerpt(x: Tensor) -> Tensor:
    """The spectrogram of a part of every clip, slower or faster, two bands of it left out."""
    speed = 0.7 * 2 ** torch.rand(len(x), 1)  # from 0.7 to 1.4
    start = torch.rand(len(x), 1) * (LENGTH - 2 - EXCERPT * speed)
    place = start + speed * torch.arange(EXCERPT)
    before, share = place.long(), place.frac()
    s = spectrogram(x.gather(1, before) * (1 - share) + x.gather(1, before + 1) * share)
    for dim, most in ((2, 30), (3, 8)):
        place = torch.arange(s.shape[dim]).view(-1, *[1] * (3 - dim))
        first = torch.randint(s.shape[dim], (len(x), 1, 1, 1))
        width = torch.randint(most, (len(x), 1, 1, 1))
        s = s.masked_fill((place >= first) & (place < first + width), 0.0)
    return s


def network() -> nn.Sequential:
    """`[b, 1, BINS, frames]` to `[b, 64]`."""
    layers: list[nn.Module] = []
    for inner, outer in ((1, 16), (16, 32), (32, 64)):
        layers.append(nn.Conv2d(inner, outer, 3, stride=2, padding=1))
        layers += [nn.BatchNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@torch.no_grad()
def features(encoder: nn.Module, x: Tensor) -> Tensor:
    encoder.eval()
    z = torch.cat([encoder(spectrogram(part)) for part in x.split(128)])
    encoder.train()
    return z


@torch.no_grad()
def accuracy(z: Tensor, label: Tensor) -> float:
    """Of a linear classifier by least squares from an eighth of the clips, on the others."""
    z = (z - z.mean(0)) / z.std(0)
    z = torch.cat([z, torch.ones(len(z), 1)], 1)
    few = CLIPS // 8
    known, targets = z[:few], nn.functional.one_hot(label[:few], INSTRUMENTS).float()
    ridge = known.T @ known + torch.eye(z.shape[1])
    found = z[few:] @ torch.linalg.solve(ridge, known.T @ targets)
    return (found.argmax(1) == label[few:]).float().mean().item()


def plot(path: str, x: Tensor, parts: dict[str, Tensor], label: Tensor) -> None:
    """A clip with two excerpts of it, and two principal directions of features."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    pictures = [spectrogram(x[:1]), excerpt(x[:1]), excerpt(x[:1])]
    panels = figure.subplots(1, 3 + len(parts), width_ratios=[2, 1, 1, *[3] * len(parts)])
    for axes, s, title in zip(panels, pictures, ("clip", "excerpt", "excerpt"), strict=False):
        axes.imshow(s[0, 0], origin="lower", aspect="auto")
        axes.set(title=title, xticks=[], yticks=[])
    for axes, (title, z) in zip(panels[3:], parts.items(), strict=True):
        z = nn.functional.normalize(z - z.mean(0), dim=1)
        one, two = (z @ torch.linalg.svd(z, full_matrices=False).Vh[:2].T).T
        axes.scatter(one, two, s=3, c=label, cmap="tab10")
        axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=90)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--plot", metavar="FILE", help="picture of the clips; needs matplotlib")
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    x, label = draw_clips()
    encoder, head = network(), nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    untrained = features(encoder, x)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for step in range(asked.steps):
        clips = x[torch.randperm(CLIPS)[:BATCH]]
        loss = nt_xent(*(head(encoder(excerpt(clips))) for _ in "12"), temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:2}: loss {loss.item():.4f}", flush=True)
    trained = features(encoder, x)
    before, after = accuracy(untrained, label), accuracy(trained, label)
    print(f"last loss {loss.item():.4f}\naccuracy {before:.3f} untrained, {after:.3f}")
    if asked.plot:
        plot(asked.plot, x, {"untrained": untrained, "trained": trained}, label)
    assert after > before
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
