"""Fine-tuning of the whole network with a fraction of the labels."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from ..pretrain.augment import Views
from ..pretrain.data import Images
from .features import extract
from .linear import draw_fraction

BATCH = 128
# About the epochs of SimCLR (60 with 1 % of the labels, 30 with 10 %), within what small sets
# need and large ones can afford.
EPOCHS, LEAST_STEPS, MOST_STEPS = 30, 150, 20000


def finetune_steps(labelled: int) -> int:
    """Steps for that many labelled images: 30 epochs, from 150 to 20,000 steps."""
    return min(max(EPOCHS * labelled // BATCH, LEAST_STEPS), MOST_STEPS)


def finetune(
    backbone: nn.Module,
    images: Images,
    fraction: float,
    *,
    steps: int | None = None,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Accuracy on the test images after training all weights on a fraction of the labels.

    The backbone is copied and stays as it is. A linear classifier starts at zero and SGD
    (Nesterov momentum 0.9, no weight decay, cosine schedule) trains it and the backbone on batches
    of 128 lightly augmented labelled images.

    Args:
        backbone: Maps images to features `[b, width]`.
        images: With labels, on the device to compute on.
        fraction: Of every class, above 0 and at most 1; one image of each at least.
        steps: Of SGD; `finetune_steps` by default.
        learning_rate: At the start.
        seed: Of the draw of images, of batches and augmentation.
        progress: Called with steps done and steps in all.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: A fraction out of range, or data without labels.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
    Representations", section B.5.
    """
    if not 0 < _check.finite("fraction", fraction) <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    if not images.labelled:
        raise ValueError("images must have labels in both splits to fine-tune on")
    rows = draw_fraction(images.train_labels, fraction, seed).to(images.train.device)
    steps = finetune_steps(len(rows)) if steps is None else steps
    _check.count("steps", steps)
    numbers, known = images.statistics(), images.with_labels()
    network = copy.deepcopy(backbone).to(images.train.device)
    width = extract(network, images.train[:1], numbers).shape[1]
    classes = int(max(images.train_labels.max(), images.test_labels.max())) + 1
    head = nn.Linear(width, classes, device=images.train.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model = nn.Sequential(network, head)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _train(model, images, rows, numbers, steps, learning_rate, progress)
    correct = extract(model, known.test, numbers).argmax(1) == known.test_labels
    return correct.double().mean().item()


@torch.enable_grad()
def _train(model, images: Images, rows: Tensor, numbers, steps, learning_rate, progress) -> None:
    device = images.train.device
    views = Views(images.kind, images.size, numbers).to(device)
    parameters = list(model.parameters())
    for p in parameters:
        p.requires_grad_()
    optimizer = torch.optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for step, index in enumerate(_batches(len(rows), steps)):
        chosen = rows[index.to(device)]
        view = views.labelled(images.train[chosen])
        loss = F.cross_entropy(model(view), images.train_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)


def _batches(n: int, steps: int):
    """Rows of every step: one permutation after the other; few images repeat within a batch."""
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(left) < BATCH:
            left = torch.cat([left, torch.randperm(n)])
        yield left[:BATCH]
        left = left[BATCH:]
