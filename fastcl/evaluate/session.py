"""From a run folder to its figures, pictures and report."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from .._files import replace_file
from ..pretrain.data import Images
from ..pretrain.lock import locked
from ..pretrain.recipe import Config
from ..version import __version__
from . import measure, page, plot
from .collapse import diagnose
from .maps import attention_blocks, attention_maps, feature_maps
from .measure import TRAINED, UNTRAINED, Choices, Metric
from .report import initial_backbone, load_run
from .retrieval import cosine_neighbours

FIGURES = "evaluation.json"
REPORT = "report.html"
PICTURES = "evaluation"  # folder
SHEET_QUERIES, SHEET_NEIGHBOURS, MAP_IMAGES, HEADS = 10, 8, 6, 6


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to, and where it is.

    Args:
        config: Of the run.
        metrics: Every figure with its protocol.
        folder: Where report and pictures are.
    """

    config: Config
    metrics: list[Metric]
    folder: Path


def evaluate_run(
    folder: Path,
    choices: Choices,
    *,
    device: str,
    out: Path | None = None,
    limit: int | None = None,
    data: str | None = None,
    bad: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Measure a run and write `report.html`, `evaluation.json` and its pictures.

    Args:
        folder: Made by `fastcl pretrain`.
        choices: Protocols.
        device: Where to compute.
        out: Folder of what is written; the run's by default, or one below it for other data.
        limit: Images of each split at most; the run's own by default.
        data: Other data to measure on, as `load_images` takes them.
        bad: What is done about images that cannot be read, as `load_run` takes it.
        tell: Called with what is being done.

    Raises:
        FileNotFoundError, ValueError: No finished run, or choices that do not fit.
        ImportError: UMAP is asked for and not installed.
        FolderInUse: Another process writes into the folder of what is written.
    """
    plot.plane_method(choices.embedding)
    tell("loading the run")
    config, trained, images = load_run(folder, limit, data, bad)
    if images.bad:
        tell(f"{len(images.bad):,} images cannot be read and are left out, {images.bad[0]}")
    out = out or (folder if data is None else folder / f"on-{Path(data).name}")
    config = config if data is None else replace(config, data=data)
    with locked(out):
        return _evaluate(
            config, trained, images.to(device), choices, folder=folder, out=out, tell=tell
        )  # fmt: skip


def _evaluate(
    config: Config, trained: nn.Module, images: Images, choices: Choices, *, folder: Path,
    out: Path, tell: Callable[[str], None],
) -> Evaluation:  # fmt: skip
    device = images.train.device
    untrained, _ = initial_backbone(config, images.channels)
    backbones = {UNTRAINED: untrained.to(device), TRAINED: trained.to(device)}
    tell("extracting features")
    features = measure.features_of(images, backbones)
    metrics: list[Metric] = []
    if images.labelled:
        known = images.with_labels()
        of_known = features if known is images else measure.features_of(
            known, backbones, images.statistics()
        )  # fmt: skip
        metrics += measure.classification(of_known, known, choices, tell)
        metrics += measure.finetuning(backbones, images, choices, tell)
    tell("alignment, uniformity, effective rank")
    metrics += measure.geometry(features, backbones, images, choices)
    tell("drawing")
    with matplotlib.rc_context(page.STYLE):
        pictures = _pictures(read_history(folder), backbones, features, images, choices)
    # Not in the run folder itself, where the pictures of the pretraining are.
    beside = folder / PICTURES if out == folder else out
    beside.mkdir(exist_ok=True)
    for name, figure in pictures.items():
        figure.savefig(beside / f"{name}.png", dpi=150)
    found = diagnose(features[TRAINED][1])
    text = page.render(_page(config, images, metrics, pictures, found, folder))
    replace_file(out / REPORT, lambda file: file.write(text.encode()))
    summary = {
        "choices": asdict(choices), "metrics": [asdict(m) for m in metrics],
        "collapse": asdict(found),
    }  # fmt: skip
    text = json.dumps(summary, indent=2) + "\n"
    replace_file(out / FIGURES, lambda file: file.write(text.encode()))
    return Evaluation(config, metrics, out)


def read_history(folder: Path) -> list[dict]:
    """The rows of metrics.csv as numbers, None where a cell is empty; none without the file."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [
            {n: float(cell) if cell else None for n, cell in row.items() if n != "slowest"}
            for row in csv.DictReader(file)
        ]


def _pictures(
    history: list[dict], backbones, features: measure.Features, images: Images, choices: Choices
) -> dict[str, Figure]:
    """Every picture that the data allow, by the name of its file."""
    train, test = features[TRAINED]
    found: dict[str, Figure | None] = {}
    if history:
        found["curves"] = plot.curves(history)
    found["embedding"] = plot.embedding(test, images.test_labels, images.classes, choices.embedding)
    found["retrieval"] = _sheet(train, test, images)
    found["maps"] = _maps(backbones[TRAINED], images)
    if len(test) > 1:
        found["spectra"] = plot.spectra({k: features[k][1] for k in (UNTRAINED, TRAINED)})
    return {name: figure for name, figure in found.items() if figure is not None}


def sheet_rows(labels: Tensor | None, n: int, count: int) -> Tensor:
    """Which test images to show: the first of every class, or the first ones; not the best."""
    if labels is None or not (labels >= 0).any():
        return torch.arange(min(n, count))
    firsts = [int((labels == label).nonzero()[0]) for label in labels[labels >= 0].unique()]
    return torch.tensor(firsts[:count])


def _sheet(train: Tensor, test: Tensor, images: Images) -> Figure:
    rows = sheet_rows(images.test_labels, len(test), SHEET_QUERIES).to(test.device)
    near = cosine_neighbours(test[rows], train, min(SHEET_NEIGHBOURS, len(train)))
    names = [None, None]
    if images.labelled:
        names[0] = [images.class_name(i) for i in images.test_labels[rows].tolist()]
        names[1] = [
            [images.class_name(i) for i in line] for line in images.train_labels[near].tolist()
        ]
    return plot.contact_sheet(images.test[rows], images.train[near], *names)


def _maps(backbone: nn.Module, images: Images) -> Figure | None:
    """Attention of a vision transformer, the stages of another network, None without either."""
    rows = sheet_rows(images.test_labels, len(images.test), MAP_IMAGES)
    shown = images.test[rows.to(images.test.device)]
    mean, deviation = (x.to(shown.device).view(1, -1, 1, 1) for x in images.statistics())
    inputs = (shown.float() / 255 - mean) / deviation
    if attention_blocks(backbone):
        maps = attention_maps(backbone, inputs)
        heads = {f"head {i + 1}": maps[:, i] for i in range(min(HEADS, maps.shape[1]))}
        return plot.map_sheet(shown, {"all heads": maps.mean(1)} | heads)
    maps = feature_maps(backbone, inputs)
    return plot.map_sheet(shown, maps) if maps else None


TEXTS = {
    "curves": ("Training", ["Means over each epoch. Spread and effective rank are of the "
               "projected embedding of the epoch's last batch; a fall towards zero is collapse."]),
    "embedding": ("Features in the plane", ["Test images, placed so that neighbours among the "
                  "features stay neighbours. Distances between clusters mean little."]),
    "retrieval": ("Nearest training images", ["The first test image of every class, not a "
                  "selection, and its neighbours by cosine of the trained backbone's features. A "
                  "solid frame: the same class. A dashed one: another, named below."]),
    "maps": ("Where the network looks", ["Convolutional network: root mean square over channels "
             "of the last activations at each resolution. Vision transformer: attention of the "
             "last block, from the class token or averaged over patches."]),
}  # fmt: skip


def _page(config, images: Images, metrics: list[Metric], pictures, found, folder: Path):
    columns = list(dict.fromkeys(name for m in metrics for name in m.values))
    rows = [
        (m.name, [m.text(c) for c in columns],
         columns.index(m.best) if m.best is not None else None, m.protocol)
        for m in metrics
    ]  # fmt: skip
    named = {m.name: m for m in metrics}
    wanted = [name for name in named if name.startswith(("linear probe, all", "fine-tuned"))]
    wanted = [name for name in named if "-NN" in name] + wanted + ["uniformity", "effective rank"]
    tiles = [(name, named[name].text(TRAINED), "") for name in wanted if name in named]
    healthy = found.verdict == "healthy"
    verdict = "none" if healthy else found.verdict
    tiles.append(("collapse of the features", verdict, "good" if healthy else "bad"))
    sections = [
        (*TEXTS[name], page.svg(pictures[name])) for name in TEXTS if name in pictures
    ]  # fmt: skip
    texts: list = [f"Features of the test images: {found.describe()}."]
    if found.remedies:
        texts += ["What to try:", found.remedies]
    spectra = page.svg(pictures["spectra"]) if "spectra" in pictures else None
    sections.append(("Collapse", texts, spectra))
    labels = f"{len(images.classes)} classes" if images.labelled else "no labels"
    return page.Page(
        title=f"{config.method} on {images.name}",
        subtitle=f"{config.backbone}, {config.epochs} epochs; {len(images.train):,} training and "
        f"{len(images.test):,} test images, {labels}; figures of the backbone's output, before "
        f"any projection head",
        tiles=tiles,
        columns=columns,
        rows=rows,
        sections=sections,
        settings=_settings(config, folder),
    )


def _settings(config: Config, folder: Path) -> list[tuple[str, str]]:
    values = asdict(replace(config, data=Path(config.data).name)) | {"folder": folder.name}
    values |= values.pop("options")
    values |= {"fastcl": __version__, "torch": torch.__version__}
    return [
        (name.replace("_", " "), "-" if v is None else f"{v:g}" if isinstance(v, float) else str(v))
        for name, v in values.items()
    ]
