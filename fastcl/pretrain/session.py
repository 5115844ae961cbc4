"""From the user's choices to a finished run folder."""

import hashlib
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from .._files import replace_file
from ..evaluate.features import extract
from ..evaluate.plot import plot_curves, plot_embedding
from ..evaluate.report import CONFIG, RESULTS, WEIGHTS, Report, Score, score_all
from . import checkpoint
from .clearing import BAD, CURVES, EMBEDDING, clear_run
from .data import Images, load_images
from .devices import automatic_precision, device_count
from .display import Display, print_report
from .lock import is_first_process, locked
from .loggers import check_logger, logging_to
from .recipe import Config, resolve
from .run import Run, build_fabric, place
from .signals import Stopped, StopRequest
from .weights import facts_of, save_weights

SCORED = 20_000  # images of each split at most, where they have to be read and decoded for it
UNTIL = "until_epoch"
UNASKED = {"stem": "auto", "augmentation": 1.0, "precision": "32", "devices": 1, "accumulate": 1,
           "cuda_graph": False}  # fmt: skip


def default_folder(config: Config, images: Images, choices: dict) -> Path:
    """A folder under runs/ that tells the run from its neighbours.

    Args:
        config: Of the run.
        images: Its data.
        choices: What the user asked for instead of the recipe's; None where nothing was.
    """
    backbone = config.backbone.replace(":", "-").replace("/", "-")
    parts = [config.method, images.name, backbone, f"{config.epochs}ep", f"seed{config.seed}"]
    if config.data != "digits":  # data of one name in several places
        parts[1] += "-" + hashlib.sha256(config.data.encode()).hexdigest()[:4]
    named = {"epochs", "backbone", "seed", "compile", "channels_last"}
    parts += [
        f"{name.replace('_', '')}{value:g}" if isinstance(value, float) else f"{name}{value}"
        for name, value in sorted(choices.items())
        if name not in named and value is not None and value != UNASKED.get(name)
    ]
    return Path("runs") / "-".join(parts)


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
    stream: str = "auto",
    bad_images: str = "error",
    checkpoint_every: int | None = None,
    weights: str | Path | None = None,
    logger: str = "none",
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
        stream, bad_images: What `load_images` takes as `stream` and `bad`.
        checkpoint_every: Steps after which a checkpoint is written, beside that of every epoch.
        weights: What the backbone starts from: a file, see `start.start_from`.
        logger: "none", "tensorboard" or "wandb".
        choices: What `recipe.resolve` takes: epochs, batch_size, learning_rate, seed, ...

    Returns:
        The `Report`, or None where the run stopped early or this is not the first process.

    Raises:
        FileNotFoundError, ValueError: A choice that does not fit; the message names it.
        FloatingPointError: The training diverged.
        Stopped: A signal came, and the run is saved.
    """
    count = device_count(devices)
    if checkpoint_every is not None and checkpoint_every < 1:
        raise ValueError(f"checkpoint-every must be 1 or more, got {checkpoint_every}")
    check_logger(logger)
    if choices.get("cuda_graph") and not torch.cuda.is_available():
        raise ValueError("cuda-graph needs a GPU, and there is none here")
    if weights is not None:
        weights = str(Path(weights).expanduser().resolve())
        choices["weights"] = weights
    tell = partial(_say, console) if is_first_process() else lambda text: None
    images = load_images(
        data, size=image_size, limit=limit, stream=stream, bad=bad_images, tell=tell
    )  # fmt: skip
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
        bad_images=bad_images,
        **choices,
    )
    asked = choices | {"size": image_size and images.size, "limit": limit, "precision": precision}
    asked |= {"devices": count, "weights": weights and Path(weights).stem}
    folder = out or default_folder(config, images, asked)
    _say_size(console, image_size, images)
    # Before the other processes are started, which would wait for this one in vain.
    with locked(folder) if is_first_process() else nullcontext():
        run = Run(config, images, folder, build_fabric(count, precision))
        _resume(run, resume)
        with logging_to(logger, run):
            return _train_and_finish(run, console, stop_after, checkpoint_every)


def _train_and_finish(
    run: Run, console: Console, stop_after: int | None, checkpoint_every: int | None
) -> Report | None:
    config, first = run.config, run.fabric.is_global_zero
    if first:
        config.save(run.folder / CONFIG)
        done = f", continued {place(run.epoch, run.step)}" if run.saved else ""
        _say(
            console,
            f"{config.method} on {len(run.images.train):,} images of {run.images.name}, "
            f"{config.backbone}, {run.fabric.device}, run folder {run.folder}{done}",
        )
        for change in config.changes:
            _say_change(console, change)
    try:
        finished = _train(run, console, stop_after, checkpoint_every)
        report = _finish(run, console) if first and finished else None
    finally:
        _tell_of_bad(run, console)
    if not first:
        return None
    if not finished:
        console.print(f"stopped after epoch {run.epoch}; the same command continues")
        return None
    print_report(console, report)
    _say(console, f"everything is in {run.folder}")
    return report


def _say(console: Console, text: str) -> None:
    """A line as it is: paths may hold brackets, and stay whole for copying."""
    console.print(text, markup=False, soft_wrap=True)


def _say_size(console: Console, asked: int | None, images: Images) -> None:
    if asked is not None and asked != images.size:
        _say(
            console,
            f"--image-size {asked} has no effect: only images of a folder are resized, and these "
            f"are {images.size} x {images.size}",
        )


def _say_change(console: Console, change: dict) -> None:
    values = ", ".join(f"{n.replace('_', ' ')} {v:g}" for n, v in change.items() if n != UNTIL)
    _say(console, f"until epoch {change[UNTIL]}: {values}; from there the schedule of this command")


def _resume(run: Run, resume: str) -> None:
    """All processes call it; the first one clears what an earlier run has left."""
    path = run.folder / checkpoint.NAME
    if resume == "never":
        if run.fabric.is_global_zero:
            clear_run(run.folder)
    elif resume != "auto":
        given = Path(resume) / checkpoint.NAME if Path(resume).is_dir() else Path(resume)
        if path.exists() and not given.exists():
            raise FileNotFoundError(f"no checkpoint at {str(given)!r}")
        _check_folder(run)
        run.resume(given)
    elif path.exists():
        run.resume(path)


def _check_folder(run: Run) -> None:
    """A run that goes on from elsewhere must not mix with another in its folder."""
    path = run.folder / CONFIG
    differences = run.config.differences(Config.load(path)) if path.exists() else []
    if differences:
        raise ValueError(
            f"{str(run.folder)!r} holds another run ({'; '.join(differences)}): choose another "
            f"--out"
        )


def _tell_of_bad(run: Run, console: Console) -> None:
    """How many images cannot be read, and in the run folder which; of other ranks in files of
    their own."""
    said = {*run.images.bad, *run.feed.bad_images.values()}
    for split in (run.images.train, run.images.test):
        said |= getattr(split, "said", set())
    if not said:
        return
    rank = run.fabric.global_rank
    path = run.folder / (BAD if rank == 0 else f"{rank}-{BAD}")
    text = "".join(f"{line}\n" for line in sorted(said))
    replace_file(path, lambda file: file.write(text.encode(errors="surrogateescape")))
    _say(console, f"{len(said):,} images cannot be read and are skipped: {path}")


def _train(
    run: Run, console: Console, stop_after: int | None, checkpoint_every: int | None
) -> bool:
    with StopRequest() as stop:
        if not run.fabric.is_global_zero:
            return run.train(None, stop_after, stop, checkpoint_every)
        try:
            with Display(console, run.config.epochs, run.steps, run.epoch, run.step) as display:
                finished = run.train(display, stop_after, stop, checkpoint_every)
        except KeyboardInterrupt:
            there = (run.folder / checkpoint.NAME).exists()
            on = "goes on from the checkpoint" if there else "starts anew: nothing was saved yet"
            _say(console, f"interrupted at once; the same command {on}")
            raise
        if stop() and not finished:
            stopped = Stopped(stop.number)
            _say(
                console,
                f"{stopped}: stopped and saved {place(run.epoch, run.step)}; the same command "
                f"goes on from there",
            )
            raise stopped
        return finished


@torch.no_grad()
def _finish(run: Run, console: Console) -> Report:
    """Weights, pictures and results of a finished run. Only the weights must not fail."""
    folder, images, backbone = run.folder, run.images, run.backbone
    if images.streamed:
        images = images.draw(SCORED).readable()
    facts = facts_of(run.config, run.images, run.epoch)
    save_weights(folder / WEIGHTS, backbone.state_dict(), facts)
    scores: list[Score] = []

    def draw_embedding() -> None:
        features = extract(backbone, images.test, images.statistics())
        plot_embedding(features, images.test_labels, images.classes, folder / EMBEDDING)

    for name, work in {
        "curves": lambda: plot_curves(run.history, folder / CURVES),
        "picture of the features": draw_embedding,
        "accuracy": lambda: scores.extend(score_all(run.config, backbone, images)),
    }.items():
        try:
            work()
        except Exception as error:  # hours of training are behind it
            _say(
                console,
                f"warning: no {name}: {error or type(error).__name__}; the weights are saved, and "
                f"fastcl evaluate {folder} measures them",
            )
    report = Report(scores, run.shares.result, run.seconds)
    report.save(folder / RESULTS)
    return report
