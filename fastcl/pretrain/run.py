"""The training loop, on lightning-fabric."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.order import Order
from ..evaluate.collapse import CollapseWatch, Diagnosis
from . import checkpoint
from .divergence import is_finite
from .feed import feed_of
from .graph import GraphedStep
from .images import Images
from .loggers import log_row
from .optimizer import build_optimizer, learning_rate_at, weight_decay_at
from .parts import Parts, build_parts
from .recipe import PRECISIONS, Config
from .shares import StepShares
from .state import restore, state_of, write_metrics
from .step import Step, compiled

# Steps between two looks at whether the numbers are finite, each of which waits for the device.
CHECK_EVERY = 20


def build_fabric(devices: int, precision: str) -> Fabric:
    """Fabric for this machine, launched; with several devices this starts the other processes."""
    # Buffers are left alone by DDP: the queue is equal on all ranks already and may be 32 MiB.
    strategy = DDPStrategy(broadcast_buffers=False) if devices > 1 else "auto"
    fabric = Fabric(devices=devices, strategy=strategy, precision=PRECISIONS[precision])
    fabric.launch()
    return fabric


def _never() -> bool:
    return False


class Run:
    """One pretraining run: networks, optimiser, data order and history, and their checkpoint.

    Args:
        config: Every choice.
        images: The data, on the CPU or the device.
        folder: Where checkpoint and metrics go; created.
        fabric: Launched.
        parts: What is trained; the configuration's by default.

    Attributes:
        method: The method, unwrapped.
        backbone: What it trains for.
        epoch: Epochs done.
        step: Steps done of the next one.
        sums: Of their losses and of their top-1, on this rank.
        history: One row per epoch, with the columns of metrics.csv.
        shares: Profile of a few steps.
        watch: For collapse of the embedding.
        seconds: Spent in epochs, over all sessions.
    """

    def __init__(
        self, config: Config, images: Images, folder: Path, fabric: Fabric,
        parts: Parts | None = None,
    ) -> None:  # fmt: skip
        self.config, self.folder, self.fabric = config, folder, fabric
        self.images = images.to(fabric.device)
        if fabric.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
        fabric.barrier()
        parts = parts or build_parts(config, images, fabric.device)
        self.method, self.backbone = parts.method, parts.backbone
        if fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            if config.devices > 1 and not config.method.startswith("moco"):
                # Statistics of one device would tell the two views of its images from the rest;
                # MoCo shuffles its keys instead.
                self.method = nn.SyncBatchNorm.convert_sync_batchnorm(self.method)
        if config.channels_last:
            self.method.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(
            config.optimizer, self.method, config.learning_rate, config.weight_decay,
            matrices_alone=config.weight_decay_end is not None,
            captured=config.cuda_graph,
        )  # fmt: skip
        self.model, self.optimizer = fabric.setup(self.method, optimizer)
        self._step = Step(
            fabric, self.method, self.model, self.optimizer, parts.inputs, config.accumulate
        )
        if config.cuda_graph:
            self._step = GraphedStep(self._step, fabric.device)
        self.order = Order(
            len(images.train), config.batch_size, seed=config.seed, rank=fabric.global_rank,
            ranks=fabric.world_size,
        )  # fmt: skip
        # Different views on every rank; the networks are built already, equal on all.
        fabric.seed_everything(config.seed * config.devices + fabric.global_rank, verbose=False)
        self.steps = self.order.steps
        self.feed = feed_of(self.images, self.order, config.epochs, parts.ahead)
        self.epoch = self.step = 0
        self.sums = torch.zeros(2, device=fabric.device)
        self.saved: tuple[int, int] | None = None  # epoch and step of the checkpoint
        self.history: list[dict] = []
        self.speed = 0.0  # images per second in the last epoch
        self.seconds = 0.0  # in all epochs
        self.shares = StepShares(fabric.device)
        self.watch = CollapseWatch(self.method)
        self.logger = None  # of Fabric's, on the first process

    def train(
        self,
        display=None,
        stop_after: int | None = None,
        stop: Callable[[], bool] = _never,
        checkpoint_every: int | None = None,
    ) -> bool:
        """Go on to the last epoch, or to the epoch `stop_after`, with a checkpoint after each.

        Args:
            display: A `Display`, on the first process.
            stop_after: Epoch after which to stop; the schedule stays that of the whole run.
            stop: Asked after every step, with several processes after some; once it says so, the
                run is saved where it is.
            checkpoint_every: Steps after which one is saved too, within epochs.

        Returns:
            Whether the run is finished.

        Raises:
            FloatingPointError: The training diverged; the last checkpoint is kept.
        """
        last = min(self.config.epochs, stop_after or self.config.epochs)
        try:
            with compiled(self.method) if self.config.compile else nullcontext():
                self._train_until(last, display, stop, checkpoint_every)
        finally:
            self.shares.stop()  # torch crashes at exit under a profiler that still runs
            self.feed.close()
        return self.epoch == self.config.epochs

    def _train_until(self, last: int, display, stop: Callable[[], bool], every: int | None) -> None:
        while self.epoch < last:
            row = self._train_epoch(display, stop, every)
            stopping = self._agree(stop)
            if row is not None:
                self._finish_epoch(row)
            if stopping or row is None or self.epoch == last:
                self.shares.stop()
            self.save()
            if row is not None and display is not None:
                display.show_epoch(row, self.speed)
            if stopping or row is None:
                break

    def _train_epoch(self, display, stop: Callable[[], bool], every: int | None) -> dict | None:
        """The rest of an epoch; None where it was asked to stop before the end."""
        self.model.train()
        self.feed.mark()
        size, ranks = self.config.batch_size, self.fabric.world_size
        first, started = self.step, time.perf_counter()
        for step in range(first, self.steps):
            self.shares.begin_step()
            number = self.epoch * self.steps + step
            batch = self.feed.batch(self.epoch, step)
            self.sums += self._step(batch, self._rate(number), self._decay(number))
            self.step = step + 1
            self.shares.end_step()
            self.speed = size * (self.step - first) / (time.perf_counter() - started)
            if self.watch.due(number):
                self._look(display)
            if display is not None and display.due():
                loss, top1 = (self.sums / self.step).tolist()
                display.show_step(
                    self.epoch, self.step, loss, top1, self.speed, self.feed.waiting()["waited"]
                )  # fmt: skip
            saving = every is not None and (number + 1) % every == 0
            # A single process need not ask the others.
            due = saving or (number + 1) % CHECK_EVERY == 0 or (ranks == 1 and stop())
            if due and self.step < self.steps:
                if self._agree(stop):
                    self.seconds += time.perf_counter() - started
                    return None
                if saving:
                    self.save()
        loss, top1 = (self.fabric.all_reduce(self.sums, reduce_op="mean") / self.steps).tolist()
        self.seconds += time.perf_counter() - started
        found = self._look(display)
        return {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.steps,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "loss": loss,
            "top1": None if math.isnan(top1) else top1,  # not every method has one
            "spread": None if found is None else found.spread,
            "effective_rank": None if found is None else found.effective_rank,
        } | self.feed.waiting()

    def _finish_epoch(self, row: dict) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)
        self.history.append(row)
        log_row(self.logger, row)

    def _agree(self, stop: Callable[[], bool]) -> bool:
        """Whether any process was asked to stop; all raise where one has diverged."""
        finite = is_finite(self.method, self.optimizer, self.sums[0])
        flags = torch.stack([~finite, finite.new_tensor(stop())]).float()
        diverged, stopping = self.fabric.all_reduce(flags, reduce_op="sum").tolist()
        if diverged:
            raise FloatingPointError(self._divergence())
        return bool(stopping)

    def _divergence(self) -> str:
        rate = self.optimizer.param_groups[0]["lr"]
        told = (
            f"the training diverged: loss or weights are not finite in epoch {self.epoch + 1}, "
            f"step {self.step} of {self.steps}, at a learning rate of {rate:.3g}"
        )
        if self.saved is None:
            return f"{told}; nothing was saved: start again with a lower --lr"
        return (
            f"{told}; try a lower --lr with --out {self.folder}, which goes on from the "
            f"checkpoint, {place(*self.saved)}"
        )

    def _look(self, display) -> Diagnosis | None:
        """At the embedding of the last step; a collapse is told once."""
        found = self.watch.look()
        warning = self.watch.warning(found)
        if warning is not None and display is not None:
            display.warn(warning)
        return found

    def _rate(self, step: int) -> float:
        config = self.config
        steps = config.epochs * self.steps
        return learning_rate_at(step, steps, config.learning_rate, config.warmup)

    def _decay(self, step: int) -> float | None:
        """The weight decay of a step, where it does not stay."""
        first, last = self.config.weight_decay, self.config.weight_decay_end
        if last is None:
            return None
        return weight_decay_at(step, self.config.epochs * self.steps, first, last)

    def _average_statistics(self) -> None:
        """Make the running statistics, which each rank took of its own images, one."""
        for module in self.method.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                for buffer in (module.running_mean, module.running_var):
                    buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))

    def save(self) -> None:
        """Write checkpoint.pt and metrics.csv; all ranks call it."""
        if self.config.devices > 1:
            self._average_statistics()
        state = state_of(self)
        if self.fabric.is_global_zero:
            checkpoint.save_checkpoint(self.folder / checkpoint.NAME, state)
            write_metrics(self.folder / "metrics.csv", self.history)
        self.saved = self.epoch, self.step
        self.fabric.barrier()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration, learning rate and epochs apart.

        Raises:
            FileNotFoundError: No such file.
            ValueError: Not a checkpoint, or one of another configuration; the message says where
                they differ.
        """
        restore(self, path)
        self.saved = self.epoch, self.step


def place(epoch: int, step: int) -> str:
    """Where a run is, in words."""
    return f"at step {step} of epoch {epoch + 1}" if step else f"after epoch {epoch}"
