"""From the user's choices to a finished run folder."""

from pathlib import Path

import torch
from rich.console import Console

from ..evaluate.features import extract
from ..evaluate.plot import plot_curves, plot_embedding
from ..evaluate.report import RESULTS, WEIGHTS, Report, score_all
from . import checkpoint
from .data import Images, load_images
from .display import Display, print_report
from .recipe import Config, resolve
from .run import Run, automatic_precision, build_fabric, device_count
from .weights import facts_of, save_weights


def default_folder(config: Config, images: Images) -> Path:
    """A folder under runs/ that tells the run from its neighbours."""
    backbone = config.backbone.replace(":", "-").replace("/", "-")
    name = f"{config.method}-{images.name}-{backbone}-{config.epochs}ep-seed{config.seed}"
    return Path("runs") / name


def pretrain(
    console: Console,
    *,
    method: str,
    data: str,
    image_size: int | None = None,
    limit: int | None = None,
    precision: str = "auto",
    devices: str = "auto",
    out: Path | None = None,
    resume: str = "auto",
    stop_after: int | None = None,
    **choices,
) -> Report | None:
    """Pretrain, evaluate, and leave a run folder.

    Args:
        console: Where progress and table appear.
        method: One of `recipes.METHODS`.
        data: "digits" or a path, see `load_images`.
        image_size: Side that folder images are resized to.
        limit: Images of each split at most.
        precision: "auto", "32" or "bf16".
        devices: "auto" or a number.
        out: The run folder; under runs/ by default.
        resume: "auto" goes on from the folder's checkpoint if there is one, "never" starts anew,
            a path goes on from that checkpoint.
        stop_after: Epoch after which to stop for now.
        choices: What `recipe.resolve` takes: epochs, batch_size, learning_rate, seed, ...

    Returns:
        The `Report`, or None where the run stopped early or this is not the first process.

    Raises:
        FileNotFoundError, ValueError: A choice that does not fit; the message names it.
        FloatingPointError: The training diverged.
    """
    count = device_count(devices)
    images = load_images(data, size=image_size, limit=limit)
    if data != "digits":  # the run folder must find them from anywhere
        data = str(Path(data).expanduser().resolve())
    precision = automatic_precision() if precision == "auto" else precision
    config = resolve(
        images,
        method=method,
        data=data,
        precision=precision,
        devices=count,
        limit=limit,
        **choices,
    )
    folder = out or default_folder(config, images)
    fabric = build_fabric(count, precision)
    run = Run(config, images, folder, fabric)
    _resume(run, resume)
    first = fabric.is_global_zero
    if first:
        config.save(folder / "config.json")
        done = f", continued after epoch {run.epoch}" if run.epoch else ""
        _say(
            console,
            f"{config.method} on {len(images.train):,} images of {images.name}, "
            f"{config.backbone}, {fabric.device}, run folder {folder}{done}",
        )
    finished = _train(run, console, stop_after)
    if not first:
        return None
    if not finished:
        console.print(f"stopped after epoch {run.epoch}; the same command continues")
        return None
    report = _finish(run)
    print_report(console, report)
    _say(console, f"everything is in {folder}")
    return report


def _say(console: Console, text: str) -> None:
    """A line as it is: paths may hold brackets, and stay whole for copying."""
    console.print(text, markup=False, soft_wrap=True)


def _resume(run: Run, resume: str) -> None:
    path = run.folder / checkpoint.NAME
    if resume not in ("auto", "never"):
        path = Path(resume) / checkpoint.NAME if Path(resume).is_dir() else Path(resume)
        run.resume(path)
    elif resume == "auto" and path.exists():
        run.resume(path)


def _train(run: Run, console: Console, stop_after: int | None) -> bool:
    if not run.fabric.is_global_zero:
        return run.train(stop_after=stop_after)
    try:
        with Display(console, run.config.epochs, run.steps, run.epoch) as display:
            return run.train(display, stop_after)
    except KeyboardInterrupt:
        console.print(
            f"interrupted in epoch {run.epoch + 1}; the same command continues after "
            f"epoch {run.epoch}"
        )
        raise


@torch.no_grad()
def _finish(run: Run) -> Report:
    """Weights, pictures and results of a finished run."""
    folder, images, backbone = run.folder, run.images, run.backbone
    facts = facts_of(run.config, images, run.epoch)
    save_weights(folder / WEIGHTS, backbone.state_dict(), facts)
    plot_curves(run.history, folder / "curves.png")
    features = extract(backbone, images.test, images.statistics())
    plot_embedding(features, images.test_labels, images.classes, folder / "embedding.png")
    report = Report(score_all(run.config, backbone, images), run.shares.result, run.seconds)
    report.save(folder / RESULTS)
    return report
