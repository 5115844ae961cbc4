"""SimCLR v2 after pretraining: fine-tune on few labels."""

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from .._files import replace_file
from ..evaluate.features import extract
from ..evaluate.finetune import finetune_steps
from ..evaluate.linear import draw_fraction
from ..evaluate.report import load_run
from ..pretrain import checkpoint
from ..pretrain.augment import Views
from ..pretrain.data import Images
from ..pretrain.lock import locked
from ..pretrain.parts import build_method
from ..pretrain.recipe import Config
from ..pretrain.weights import CLASSIFIER, Facts, facts_of, fill, read_weights, save_weights

Progress = Callable[[int, int], None]
Tell = Callable[[str], None]
BATCH = 128
SHOW_EVERY = 50
FINETUNED = "finetuned"
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
    progress: Progress | None = None,
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
        progress: Called with steps done and steps in all.

    Raises:
        ValueError: A fraction or from_layer out of range, or data without labels.

    Source: Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners",
    section 2, equation 1.
    """
    rows = labelled_rows(images, fraction, seed)
    kept = copy.deepcopy(nn.Sequential(backbone, head_layers(head, from_layer)))
    kept.to(images.train.device)
    model = classifier(kept[0], images, kept[1])
    steps = finetune_steps(len(rows)) if steps is None else steps
    _check.count("steps", steps)

    def loss(view: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(model(view), images.train_labels[index])

    train(model, images, rows, loss, steps, learning_rate, seed, progress)
    return model


def classifier(
    backbone: nn.Module, images: Images, head: Sequence[nn.Module] = ()
) -> nn.Sequential:
    """`backbone` and then `fc`, as the last part of a ResNet is called: the layers of a head where
    there are any, and a linear layer over the classes, zero at first."""
    device = images.train.device
    layers = list(head)
    features = extract(nn.Sequential(backbone, *layers), images.train[:1], images.statistics())
    last = nn.Linear(features.shape[1], len(images.classes), device=device)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    fc = nn.Sequential(*layers, last) if layers else last
    return nn.Sequential(OrderedDict(backbone=backbone, fc=fc))


def accuracy(model: nn.Module, images: Images) -> float:
    """On the test images, in [0, 1]."""
    known = images.with_labels()
    logits = extract(model, known.test, images.statistics())
    return (logits.argmax(1) == known.test_labels).double().mean().item()


def labelled_rows(images: Images, fraction: float, seed: int) -> Tensor:
    if not 0 < _check.finite("fraction", fraction) <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    if not images.labelled:
        raise ValueError("images must have labels in both splits to fine-tune on")
    return draw_fraction(images.train_labels, fraction, seed).to(images.train.device)


@torch.enable_grad()
def train(
    model: nn.Module,
    images: Images,
    rows: Tensor,  # [n] int64 training images, some of them perhaps twice
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    learning_rate: float,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """SGD with Nesterov momentum and a cosine schedule on batches drawn from the rows."""
    device = images.train.device
    views = Views(images.kind, images.size, images.statistics()).to(device)
    parameters = [p.requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(steps):
            index = rows[torch.randint(len(rows), (BATCH,)).to(device)]
            value = loss(views.labelled(images.train[index]), index)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, steps)
    model.eval()


@dataclass(frozen=True)
class Outcome:
    """What a command did; `results.json` of its folder."""

    network: str
    fraction: float
    from_layer: int
    accuracy: float


def finetune_run(
    folder: Path,
    *,
    fraction: float,
    from_layer: int,
    steps: int | None,
    seed: int,
    device: str,
    tell: Tell = lambda text: None,
) -> Outcome:
    """Fine-tune a finished run and leave the classifier in its folder, under `finetuned`.

    Raises:
        FileNotFoundError: The folder is no finished run.
        ValueError: A choice out of range, or a method without a projection head.
        FolderInUse: Another process writes into the folder.
    """
    tell("loading the run")
    config, _, images = load_run(folder)
    with locked(folder):
        images = images.to(device)
        backbone, head = pretrained(config, images, folder)
        model = finetune(
            backbone, head, images, fraction, from_layer=from_layer, steps=steps, seed=seed,
            progress=telling("fine-tuning", tell),
        )  # fmt: skip
        outcome = Outcome(config.backbone, fraction, from_layer, accuracy(model, images))
        save(folder / FINETUNED, model, outcome, facts_of(config, images, config.epochs))
        return outcome


def telling(name: str, tell: Tell) -> Progress:
    """Progress in words, now and then."""

    def progress(step: int, steps: int) -> None:
        if step == 1 or step == steps or step % SHOW_EVERY == 0:
            tell(f"{name}, step {step}/{steps}")

    return progress


def pretrained(config: Config, images: Images, folder: Path) -> tuple[nn.Module, nn.Module]:
    """Backbone and projection head of a run, with their trained weights."""
    method, backbone = build_method(config, images.channels)
    head = getattr(method, "head", None)
    if head is None:
        raise ValueError(f"{config.method} has no projection head to fine-tune from")
    path = folder / checkpoint.NAME
    fill(method, checkpoint.load_checkpoint(path)["method"], path)
    device = images.train.device
    return backbone.to(device), head.to(device)


def save(folder: Path, model: nn.Sequential, outcome: Outcome, facts: Facts) -> None:
    """Weights under the names that the backbone's library gives them, and the outcome."""
    folder.mkdir(exist_ok=True)
    state = {name.removeprefix("backbone."): x for name, x in model.state_dict().items()}
    save_weights(folder / WEIGHTS, state, facts)
    text = json.dumps(asdict(outcome), indent=2) + "\n"
    replace_file(folder / RESULTS, lambda file: file.write(text.encode()))


def load(model: nn.Sequential, path: Path) -> None:
    """What `save` wrote, into a classifier of the same layers.

    Raises:
        FileNotFoundError, ValueError: No such file, or one of another network.
    """
    _, state = read_weights(path)
    fill(model, {n if n.startswith(CLASSIFIER) else f"backbone.{n}": x for n, x in state.items()},
         path)  # fmt: skip
