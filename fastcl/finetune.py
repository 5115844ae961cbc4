"""SimCLR v2 after pretraining: fine-tune on few labels, then teach a student with all images."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from . import _check
from .evaluate.features import extract
from .evaluate.finetune import finetune_steps, labelled_views
from .evaluate.linear import draw_fraction
from .evaluate.report import load_run
from .pretrain import checkpoint
from .pretrain.backbone import build_backbone
from .pretrain.data import Images
from .pretrain.recipe import Config
from .pretrain.run import build_method

BATCH = 128
FINETUNED, DISTILLED = "finetuned", "distilled"
WEIGHTS, RESULTS = "classifier.safetensors", "results.json"


def head_layers(head: nn.Module, count: int) -> nn.Sequential:
    """The first `count` linear layers of a projection head, each with all that follows it up to
    the next: its normalisation and its ReLU.

    Raises:
        ValueError: The head has fewer, or is no sequence of layers.
    """
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    starts = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear)]
    if not 0 <= count <= len(starts):
        raise ValueError(f"from-layer must be from 0 to {len(starts)} in this head, got {count}")
    end = [*starts, len(layers)][count]
    return nn.Sequential(*layers[:end])


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


def finetune(
    backbone: nn.Module,
    head: nn.Module,
    images: Images,
    fraction: float,
    *,
    from_layer: int = 1,
    steps: int | None = None,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> nn.Sequential:
    """A classifier: backbone, the first layers of the projection head, and a linear layer, all
    trained on a fraction of the labels.

    Args:
        backbone: Maps images to features; copied.
        head: The projection head it was pretrained with; copied.
        images: With labels, on the device to compute on.
        fraction: Of every class, above 0 and at most 1; one image of each at least.
        from_layer: Layers of the head that stay. 0 is SimCLR's fine-tuning, 1 SimCLR v2's.
        steps: Of SGD; `evaluate.finetune.finetune_steps` by default.
        learning_rate: At the start.
        seed: Of the draw of images, of batches and augmentation.

    Raises:
        ValueError: A fraction or from_layer out of range, or data without labels.

    Source: Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners",
    section 2, equation 1.
    """
    rows = _labelled_rows(images, fraction, seed)
    kept = copy.deepcopy(nn.Sequential(backbone, head_layers(head, from_layer)))
    model = classifier(kept.to(images.train.device), images)
    steps = finetune_steps(len(rows)) if steps is None else steps
    _check.count("steps", steps)

    def loss(view: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(model(view), images.train_labels[index])

    _train(model, images, rows, loss, steps, learning_rate, seed)
    return model


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
        labelled[_labelled_rows(images, fraction, seed)] = True
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
    _train(student, images, rows, loss, steps, learning_rate, seed)
    return student


def classifier(network: nn.Module, images: Images) -> nn.Sequential:
    """The network with a linear layer over the classes, zero at first."""
    device = images.train.device
    width = extract(network, images.train[:1], images.statistics()).shape[1]
    last = nn.Linear(width, len(images.classes), device=device)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(network, last)


def accuracy(model: nn.Module, images: Images) -> float:
    """On the test images, in [0, 1]."""
    logits = extract(model, images.test, images.statistics())
    return (logits.argmax(1) == images.test_labels).double().mean().item()


def _labelled_rows(images: Images, fraction: float, seed: int) -> Tensor:
    if not 0 < _check.finite("fraction", fraction) <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    if not images.labelled:
        raise ValueError("images must have labels in both splits to fine-tune on")
    return draw_fraction(images.train_labels, fraction, seed).to(images.train.device)


@torch.enable_grad()
def _train(
    model: nn.Module,
    images: Images,
    rows: Tensor,  # [n] int64 training images, some of them perhaps twice
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    learning_rate: float,
    seed: int,
) -> None:
    """SGD with Nesterov momentum and a cosine schedule on batches drawn from the rows."""
    device = images.train.device
    views = labelled_views(images.kind, images.size)
    mean, deviation = (x.to(device).view(1, -1, 1, 1) for x in images.statistics())
    parameters = [p.requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(steps):
            index = rows[torch.randint(len(rows), (BATCH,)).to(device)]
            batch = images.train[index]
            # DigitViews takes bytes, kornia numbers from 0 to 1.
            view = views(batch if images.kind == "digits" else batch.float() / 255)
            value = loss((view - mean) / deviation, index)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@dataclass(frozen=True)
class Outcome:
    """What a command did; `results.json` of its folder."""

    network: str
    fraction: float
    from_layer: int
    accuracy: float


def finetune_run(
    folder: Path, *, fraction: float, from_layer: int, steps: int | None, seed: int, device: str
) -> Outcome:
    """Fine-tune a finished run and leave the classifier in its folder, under `finetuned`.

    Raises:
        FileNotFoundError: The folder is no finished run.
        ValueError: A choice out of range, or a method without a projection head.
    """
    config, _, images = load_run(folder)
    images = images.to(device)
    backbone, head = _pretrained(config, images, folder)
    model = finetune(
        backbone, head, images, fraction, from_layer=from_layer, steps=steps, seed=seed
    )  # fmt: skip
    outcome = Outcome(config.backbone, fraction, from_layer, accuracy(model, images))
    _save(folder / FINETUNED, model, outcome)
    return outcome


def distill_run(
    folder: Path, *, student: str | None, alpha: float, temperature: float, steps: int | None,
    seed: int, device: str,
) -> Outcome:  # fmt: skip
    """Distil the fine-tuned classifier of a run into a student, left under `distilled`.

    Raises:
        FileNotFoundError: The run has not been fine-tuned.
        ValueError: A choice out of range.
    """
    config, _, images = load_run(folder)
    results = folder / FINETUNED / RESULTS
    if not results.exists():
        raise FileNotFoundError(
            f"{str(folder)!r} has no fine-tuned teacher: fastcl finetune {folder} makes it"
        )
    told = Outcome(**json.loads(results.read_text()))
    images = images.to(device)
    backbone, head = _pretrained(config, images, folder)
    teacher = classifier(nn.Sequential(backbone, head_layers(head, told.from_layer)), images)
    load_model(teacher, folder / FINETUNED / WEIGHTS, device=device)
    torch.manual_seed(seed)
    name = student or config.backbone
    network, _ = build_backbone(
        name, channels=images.channels, size=config.image_size, stem=config.stem
    )
    taught = distill(
        teacher, classifier(network.to(device), images), images, fraction=told.fraction,
        alpha=alpha, temperature=temperature, steps=steps, seed=seed,
    )  # fmt: skip
    outcome = Outcome(name, told.fraction, told.from_layer, accuracy(taught, images))
    _save(folder / DISTILLED, taught, outcome)
    return outcome


def _pretrained(config: Config, images: Images, folder: Path) -> tuple[nn.Module, nn.Module]:
    """Backbone and projection head of a run, with their trained weights."""
    method, backbone = build_method(config, images.channels)
    head = getattr(method, "head", None)
    if head is None:
        raise ValueError(f"{config.method} has no projection head to fine-tune from")
    method.load_state_dict(checkpoint.load_checkpoint(folder / checkpoint.NAME)["method"])
    device = images.train.device
    return backbone.to(device), head.to(device)


def _save(folder: Path, model: nn.Module, outcome: Outcome) -> None:
    folder.mkdir(exist_ok=True)
    save_model(model, str(folder / WEIGHTS))
    (folder / RESULTS).write_text(json.dumps(asdict(outcome), indent=2) + "\n")
