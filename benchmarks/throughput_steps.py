"""Whole steps of training from JPEG files, and what feeds them: fastcl beside other pipelines."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastcl.pretrain.data import load_images
from fastcl.pretrain.recipe import resolve
from fastcl.pretrain.run import Run, build_fabric
from fastcl.pretrain.shares import StepShares

from .throughput_peers import PEERS

SECONDS = 9.0  # of each, so that all of a case are measured in less than a minute
WARM = 2  # batches that start workers, fill caches and allocators
BATCHES = {32: 16, 224: 8}  # by the side: a step on two cores takes a second or two


def own(folder: Path, method: str, side: int, batch: int) -> Run:
    """A run of `fastcl pretrain --stream always`."""
    images = load_images(str(folder), size=side, stream="always")
    config = resolve(
        images, method=method, data=str(folder), precision="32", devices=1, seed=0, epochs=1000,
        batch_size=batch, backbone="resnet18", queue_size=4096 if method == "moco" else None,
    )  # fmt: skip
    run = Run(config, images, Path(tempfile.mkdtemp()), build_fabric(1, "32"))
    run.shares = StepShares(run.fabric.device, skip=WARM)
    return run


def own_batches(run: Run) -> Iterator:
    for k in range(run.config.epochs * run.steps):
        yield run.feed.batch(*divmod(k, run.steps))


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
    rows = [(case, "fastcl", rate(own_batches(run), nothing, batch), "images/s")]
    run.feed.close()
    for name, build in PEERS.items():
        with contextlib.suppress(ImportError):
            batches, _ = build(folder, "simclr", side, batch)
            rows.append((case, name, rate(batches, nothing, batch), "images/s"))
    return rows


def steps(folder: Path, method: str, side: int) -> list[tuple]:
    """Images/s of whole steps, and what of fastcl's goes where."""
    batch = BATCHES[side]
    case = f"{method}, ResNet-18 at {side}, batch {batch}"
    run = own(folder, method, side, batch)

    def step(found) -> None:
        run.shares.begin_step()
        run._step(found, 0.03)
        run.shares.end_step()

    run.model.train()
    rows = [(case, "fastcl", rate(own_batches(run), step, batch), "images/s")]
    run.shares.stop()
    shares = dict(run.shares.result)
    loader = run.feed.loader
    views = loader.reports()["views"].seconds / (loader.elapsed * loader.threads)
    shares |= {"views, of all cores": views, "waiting": loader.waited / loader.elapsed}
    run.feed.close()
    rows += [(case, f"fastcl: {name}", value, "share") for name, value in shares.items()]
    for name, build in PEERS.items():
        with contextlib.suppress(ImportError):
            rows.append((case, name, rate(*build(folder, method, side, batch), batch), "images/s"))
    return rows


CASES = {
    f"{method}-{side}": (method, side) for side in BATCHES for method in ("simclr", "moco")
}  # fmt: skip
