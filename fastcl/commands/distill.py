"""SimCLR v2 after fine-tuning: teach a student with all images."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from ..evaluate.finetune import finetune_steps
from ..evaluate.report import load_run
from ..pretrain.backbone import build_backbone
from ..pretrain.data import Images
from ..pretrain.lock import locked
from ..pretrain.weights import facts_of
from .finetune import (
    FINETUNED,
    RESULTS,
    WEIGHTS,
    Outcome,
    Progress,
    Tell,
    accuracy,
    classifier,
    head_layers,
    labelled_rows,
    load,
    pretrained,
    save,
    telling,
    train,
)

DISTILLED = "distilled"


def distillation_loss(
    student: Tensor,  # [n, classes]
    teacher: Tensor,  # [n, classes]
    *,
    temperature: float = 1.0,
) -> Tensor:
    """How far the student's distribution is from the teacher's.

    Equal to ``F.cross_entropy(student / temperature, softmax(teacher / temperature, 1))``.

    Args:
        student: Logits `[n, classes]`.
        teacher: Logits `[n, classes]`; receives no gradient.
        temperature: Positive; divides the logits of both.

    Returns:
        The mean over the images, a scalar.

    Raises:
        ValueError, TypeError: Logits that do not fit, a temperature that is not positive.

    Source: Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners",
    equation 2.
    """
    _check.pairs("student", student, "teacher", teacher)
    scale = 1 / _check.positive("temperature", temperature)
    return F.cross_entropy(student * scale, (teacher.detach() * scale).softmax(1))


def distill(
    teacher: nn.Module,
    student: nn.Module,
    images: Images,
    *,
    fraction: float = 0.1,
    alpha: float = 1.0,
    temperature: float = 1.0,
    steps: int | None = None,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a student on all training images to say what the teacher says.

    With alpha below 1 the labels of a fraction count too (equation 3):
    ``(1 - alpha) * cross_entropy(labelled) + alpha * distillation_loss(all)``.

    Args:
        teacher: Maps images to logits; stays as it is, in evaluation mode.
        student: Maps images to logits; trained in place.
        images: On the device to compute on; labels are read only where alpha is below 1.
        fraction: Of the labels, as the teacher was trained with.
        alpha: From 0 to 1, the share of the teacher; 1 is equation 2.
        temperature: Of `distillation_loss`.
        steps: Of SGD; `evaluate.finetune.finetune_steps` of all images by default.
        learning_rate: At the start.
        seed: Of labelled images, batches and augmentation.
        progress: Called with steps done and steps in all.

    Returns:
        The student.

    Raises:
        ValueError: A choice out of range.

    Source: Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners",
    equations 2 and 3.
    """
    if not 0 <= _check.finite("alpha", alpha) <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
    _check.positive("temperature", temperature)
    n, device = len(images.train), images.train.device
    labelled = torch.zeros(n, dtype=torch.bool, device=device)
    if alpha < 1:
        labelled[labelled_rows(images, fraction, seed)] = True
    steps = finetune_steps(n) if steps is None else steps
    _check.count("steps", steps)
    teacher = copy.deepcopy(teacher).to(device).eval()
    student.to(device)

    def loss(view: Tensor, index: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(view)
        logits = student(view)
        total = alpha * distillation_loss(logits, wanted, temperature=temperature)
        known = labelled[index]
        if known.any():
            truth = images.train_labels[index[known]]
            total = total + (1 - alpha) * F.cross_entropy(logits[known], truth)
        return total

    rows = torch.arange(n, device=device)
    if alpha < 1:  # half of every batch is labelled, or few batches would hold a label
        known = labelled.nonzero()[:, 0]
        rows = torch.cat([rows, known.repeat(-(-n // len(known)))[:n]])
    train(student, images, rows, loss, steps, learning_rate, seed, progress)
    return student


def distill_run(
    folder: Path, *, student: str | None, alpha: float, temperature: float, steps: int | None,
    seed: int, device: str, tell: Tell = lambda text: None,
) -> Outcome:  # fmt: skip
    """Distil the fine-tuned classifier of a run into a student, left under `distilled`.

    Raises:
        FileNotFoundError: The run has not been fine-tuned.
        ValueError: A choice out of range.
        FolderInUse: Another process writes into the folder.
    """
    tell("loading the run")
    config, _, images = load_run(folder)
    with locked(folder):
        results = folder / FINETUNED / RESULTS
        if not results.exists():
            raise FileNotFoundError(
                f"{str(folder)!r} has no fine-tuned teacher: fastcl finetune {folder} makes it"
            )
        told = Outcome(**json.loads(results.read_text()))
        images = images.to(device)
        backbone, head = pretrained(config, images, folder)
        teacher = classifier(backbone, images, head_layers(head, told.from_layer))
        load(teacher, folder / FINETUNED / WEIGHTS)
        torch.manual_seed(seed)
        name = student or config.backbone
        network, _ = build_backbone(
            name, channels=images.channels, size=config.image_size, stem=config.stem
        )
        taught = distill(
            teacher, classifier(network.to(device), images), images, fraction=told.fraction,
            alpha=alpha, temperature=temperature, steps=steps, seed=seed,
            progress=telling("distilling", tell),
        )  # fmt: skip
        outcome = Outcome(name, told.fraction, told.from_layer, accuracy(taught, images))
        facts = facts_of(replace(config, backbone=name), images, 0)  # the student starts anew
        save(folder / DISTILLED, taught, outcome, facts)
        return outcome
