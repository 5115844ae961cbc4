"""Whole steps of training from JPEG files, and what feeds them: fastcl beside other pipelines."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastcl.pretrain.data import load_images
from fastcl.pretrain.recipe import resolve
from fastcl.pretrain.run import Run, build_fabric
from fastcl.pretrain.shares import StepShares

from .throughput_peers import PEERS

SECONDS = 9.0  # of each loader, so that all are measured in less than a minute
TURNS = 5  # steps of each, one after the other
WARM = 2  # batches that start workers, fill caches and allocators
BATCHES = {32: 16, 224: 8}  # by the side: a step on two cores takes a second or two


def own(folder: Path, method: str, side: int, batch: int) -> Run:
    """A run of `fastcl pretrain`: small images are in memory, as by default, large ones are read
    while they are used, as if they were many."""
    images = load_images(str(folder), size=side, stream="never" if side < 96 else "always")
    config = resolve(
        images, method=method, data=str(folder), precision="32", devices=1, seed=0, epochs=1000,
        batch_size=batch, backbone="resnet18", queue_size=4096 if method == "moco" else None,
    )  # fmt: skip
    return Run(config, images, Path(tempfile.mkdtemp()), build_fabric(1, "32"))


def own_batches(run: Run) -> Iterator:
    for k in range(run.config.epochs * run.steps):
        yield run.feed.batch(*divmod(k, run.steps))


def made(run: Run) -> Iterator:
    """The views of every batch."""
    for batch in own_batches(run):
        yield run._step.inputs(batch)


def rate(batches: Iterator, step: Callable, batch: int) -> float:
    """Images per second of a step on every batch."""
    for _ in range(WARM):
        step(next(batches))
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        step(next(batches))
        count += batch
    return count / (time.perf_counter() - started)


def nothing(batch) -> None:
    """A network that takes no time."""


def loaders(folder: Path, side: int) -> list[tuple]:
    """Images/s that could train, if training took no time."""
    batch, case = BATCHES[side], f"loader alone, two views of {side}"
    run = own(folder, "simclr", side, batch)
    rows = [(case, "fastcl", rate(made(run), nothing, batch), "images/s")]
    run.feed.close()
    for name, build in PEERS.items():
        with contextlib.suppress(ImportError):
            batches, _ = build(folder, "simclr", side, batch)
            rows.append((case, name, rate(batches, nothing, batch), "images/s"))
    return rows


def steps(folder: Path, method: str, side: int) -> list[tuple]:
    """Images/s of whole steps, in turns, and what of fastcl's goes where."""
    batch = BATCHES[side]
    case = f"{method}, ResNet-18 at {side}, batch {batch}"
    run = own(folder, method, side, batch)
    run.model.train()
    contenders = {"fastcl": (own_batches(run), lambda found: run._step(found, 0.03))}
    for name, build in PEERS.items():
        with contextlib.suppress(ImportError):
            contenders[name] = build(folder, method, side, batch)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(WARM + TURNS):
        for name, (batches, step) in contenders.items():
            started = time.perf_counter()
            step(next(batches))
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(found[WARM:]) for name, found in seconds.items()}
    rows = [(case, name, batch / median, "images/s") for name, median in medians.items()]
    return rows + [(case, f"fastcl: {name}", x, "share") for name, x in shares(run).items()]


def shares(run: Run) -> dict[str, float]:
    """Of the time of some steps after each other."""
    profile = StepShares(run.fabric.device, skip=1, steps=TURNS - 1)
    batches, inputs, seconds = own_batches(run), run._step.inputs, []

    def timed(batch) -> tuple:
        started = time.perf_counter()
        found = inputs(batch)
        seconds.append(time.perf_counter() - started)
        return found

    run._step.inputs = timed
    next(batches)  # where the run is set back to its beginning
    run.feed.mark()
    before, started = _of_threads(run), time.perf_counter()
    for _ in range(TURNS):
        profile.begin_step()
        run._step(next(batches), 0.03)
        profile.end_step()
    elapsed = time.perf_counter() - started
    profile.stop()
    views = (sum(seconds) + _of_threads(run) - before) / elapsed
    waiting = run.feed.waiting()["waited"] or 0.0  # None where images are in memory
    run.feed.close()
    return dict(profile.result) | {"views, of all cores": views, "waiting": waiting}


def _of_threads(run: Run) -> float:
    """Seconds of all cores that views have taken in the threads that read images, if there are."""
    loader = getattr(run.feed, "loader", None)
    return 0.0 if loader is None else loader.reports()["views"].seconds / loader.threads


CASES = {
    f"{method}-{side}": (method, side) for side in BATCHES for method in ("simclr", "moco")
}  # fmt: skip
