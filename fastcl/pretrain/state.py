"""A run as the contents of its files, and back."""

import csv
import io
from pathlib import Path

import torch
from torch.optim import Optimizer

from .._files import replace_file
from . import checkpoint
from .recipe import Config

COLUMNS = (
    "epoch", "step", "learning_rate", "loss", "top1", "spread", "effective_rank", "waited",
    "slowest",
)  # fmt: skip
FIELDS = {
    "format", "config", "epoch", "step", "history", "shares", "seconds", "method", "optimizer",
    "random", "sums",
}  # fmt: skip


def state_of(run) -> dict | None:  # run: Run
    """Everything that decides the numbers from here on; all ranks call it, the first gets it."""
    mine = checkpoint.random_state(run.fabric.device), run.sums.cpu()
    ranks = [mine]
    if run.config.devices > 1:
        ranks = [None] * run.fabric.world_size
        torch.distributed.all_gather_object(ranks, mine)
    if not run.fabric.is_global_zero:
        return None
    return {
        "config": vars(run.config),
        "epoch": run.epoch,
        "step": run.step,
        "history": run.history,
        "shares": run.shares.result,
        "seconds": run.seconds,
        "method": run.method.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": [random for random, _ in ranks],
        "sums": [sums for _, sums in ranks],
    }


def restore(run, path: Path) -> None:  # run: Run
    """Put a run where its checkpoint is.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a checkpoint, or one of another run; the message says where they differ.
    """
    state = checkpoint.load_checkpoint(path)
    wrong = [f"no {name}" for name in sorted(FIELDS - state.keys())]
    wrong += [f"an unknown {name}" for name in sorted(map(str, state.keys() - FIELDS))]
    if wrong:
        raise ValueError(f"{str(path)!r} is no checkpoint of this version: it has {wrong[0]}")
    try:
        before = Config(**state["config"])
    except TypeError as error:
        raise ValueError(f"{str(path)!r} is of another version: {error}") from error
    try:
        run.config = run.config.continued(before, state["epoch"])
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is of another run ({error}): "
            f"choose another --out, or start anew with --resume never"
        ) from None
    if run.config.epochs < state["epoch"] + bool(state["step"]):
        raise ValueError(
            f"epochs must be at least {state['epoch'] + bool(state['step'])}, where "
            f"{str(path)!r} is, got {run.config.epochs}"
        )
    if state["epoch"] == run.config.epochs and run.config.changes != before.changes:
        raise ValueError(
            f"{str(path)!r} is of a finished run with a learning rate of {before.learning_rate:g}: "
            f"more --epochs go on with another one, and another --out starts anew"
        )
    try:
        _fill(run, state)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} does not fit the run: {told[:300]}") from error


def _fill(run, state: dict) -> None:
    run.method.load_state_dict(state["method"])
    run.optimizer.load_state_dict(state["optimizer"])
    _check_shapes(run.optimizer)
    random, sums = (state[name][run.fabric.global_rank] for name in ("random", "sums"))
    if sums.shape != run.sums.shape:
        raise ValueError(f"sums have shape {list(sums.shape)}")
    run.sums = sums.to(run.sums.device)
    run.epoch, run.step, run.history = state["epoch"], state["step"], state["history"]
    run.shares.result, run.seconds = state["shares"], state["seconds"]
    # Last: nothing may be drawn after it.
    checkpoint.set_random_state(random, run.fabric.device)


def _check_shapes(optimizer: Optimizer) -> None:
    """PyTorch finds a velocity of another shape only in the first step."""
    for parameter, state in optimizer.state.items():
        for name, x in state.items():
            if isinstance(x, torch.Tensor) and x.dim() and x.shape != parameter.shape:
                raise ValueError(
                    f"{name} of the optimizer has shape {list(x.shape)} for a parameter of "
                    f"{list(parameter.shape)}"
                )


def write_metrics(path: Path, history: list[dict]) -> None:
    """One line per epoch; floats in full, so that equal runs have equal files."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(history)
    replace_file(path, lambda file: file.write(text.getvalue().encode()))
