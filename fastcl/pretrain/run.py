"""The training loop, on lightning-fabric."""

import csv
import io
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import methods
from ..evaluate.collapse import CollapseWatch, Diagnosis
from ..evaluate.report import initial_backbone
from . import checkpoint
from .augment import Views
from .data import Images
from .files import replace_file
from .optimizer import build_optimizer, learning_rate_at
from .recipe import PRECISIONS, Config
from .shares import StepShares

COLUMNS = ("epoch", "step", "learning_rate", "loss", "top1", "spread", "effective_rank")


def device_count(devices: str) -> int:
    """How many processes "auto" or a number stands for: every GPU, or one process.

    Raises:
        ValueError: Neither "auto" nor a number above zero.
    """
    if devices == "auto":
        return max(1, torch.cuda.device_count())
    if not devices.isdigit() or int(devices) < 1:
        raise ValueError(f"devices must be auto or a number from 1, got {devices!r}")
    return int(devices)


def automatic_precision() -> str:
    """bf16 on a GPU that multiplies it; 32 elsewhere, where most CPUs only emulate it."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else "32"


def build_fabric(devices: int, precision: str) -> Fabric:
    """Fabric for this machine, launched; with several devices this starts the other processes."""
    # Buffers are left alone by DDP: the queue is equal on all ranks already and may be 32 MiB.
    strategy = DDPStrategy(broadcast_buffers=False) if devices > 1 else "auto"
    fabric = Fabric(devices=devices, strategy=strategy, precision=PRECISIONS[precision])
    fabric.launch()
    return fabric


class Run:
    """One pretraining run: networks, optimiser, data order and history, and their checkpoint.

    Args:
        config: Every choice.
        images: The data, on the CPU or the device.
        folder: Where checkpoint and metrics go; created.
        fabric: Launched.

    Attributes:
        method: The method, unwrapped.
        epoch: Epochs done.
        history: One row per epoch, with the columns of metrics.csv.
        shares: Profile of a few steps.
        watch: For collapse of the embedding.
        seconds: Spent in epochs, over all sessions.
    """

    def __init__(self, config: Config, images: Images, folder: Path, fabric: Fabric) -> None:
        self.config, self.folder, self.fabric = config, folder, fabric
        self.images = images.to(fabric.device)
        if fabric.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
        fabric.barrier()
        self.method = build_method(config, images.channels)
        if fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            if config.devices > 1 and config.method == "simclr":
                # Statistics of one device would tell the two views of its images from the rest.
                self.method = nn.SyncBatchNorm.convert_sync_batchnorm(self.method)
        # Convolutions are faster with channels last: 1.3 times on a CPU, more on tensor cores.
        self.method.to(memory_format=torch.channels_last)
        optimizer = build_optimizer(
            config.optimizer, self.method, config.learning_rate, config.weight_decay
        )
        self.model, self.optimizer = fabric.setup(self.method, optimizer)
        self.views = Views(images.kind, images.size, images.statistics()).to(fabric.device)
        self.order = torch.Generator().manual_seed(config.seed)  # equal on all ranks
        # Different views on every rank; the networks are built already, equal on all.
        fabric.seed_everything(config.seed * config.devices + fabric.global_rank, verbose=False)
        self.steps = len(images.train) // config.batch_size
        self.epoch = 0
        self.history: list[dict] = []
        self.speed = 0.0  # images per second in the last epoch
        self.seconds = 0.0  # in all epochs
        self.shares = StepShares(fabric.device)
        self.watch = CollapseWatch(self.method)

    def train(self, display=None, stop_after: int | None = None) -> bool:
        """Go on to the last epoch, or to the epoch `stop_after`, with a checkpoint after each.

        Args:
            display: A `Display`, on the first process.
            stop_after: Epoch after which to stop; the schedule stays that of the whole run.

        Returns:
            Whether the run is finished.

        Raises:
            FloatingPointError: The loss is not finite; the last checkpoint is kept.
        """
        last = min(self.config.epochs, stop_after or self.config.epochs)
        try:
            self._train_until(last, display)
        finally:
            self.shares.stop()  # torch crashes at exit under a profiler that still runs
        return self.epoch == self.config.epochs

    def _train_until(self, last: int, display) -> None:
        while self.epoch < last:
            row = self._train_epoch(display)
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(
                    f"the loss is {row['loss']} in epoch {row['epoch']}: try a lower --lr; "
                    f"the checkpoint is that of epoch {self.epoch}"
                )
            self.epoch += 1
            self.history.append(row)
            if self.config.devices > 1:
                self._average_statistics()
            if self.epoch == last:
                self.shares.stop()
            self.save()
            if display is not None:
                display.show_epoch(row, self.speed)

    def _train_epoch(self, display) -> dict:
        self.model.train()
        batch, ranks = self.config.batch_size, self.fabric.world_size
        order = torch.randperm(len(self.images.train), generator=self.order)
        order = order[: self.steps * batch].view(self.steps, ranks, batch // ranks)
        order = order[:, self.fabric.global_rank].to(self.fabric.device)
        sums = torch.zeros(2, device=self.fabric.device)
        started = time.perf_counter()
        for step in range(self.steps):
            self.shares.begin_step()
            sums += self._train_step(self.epoch * self.steps + step, order[step])
            self.shares.end_step()
            self.speed = batch * (step + 1) / (time.perf_counter() - started)
            if self.watch.due(self.epoch * self.steps + step):
                self._look(display)
            if display is not None and display.due():
                loss, top1 = (sums / (step + 1)).tolist()
                display.show_step(self.epoch, step + 1, loss, top1, self.speed)
        loss, top1 = (self.fabric.all_reduce(sums, reduce_op="mean") / self.steps).tolist()
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self.speed = batch * self.steps / seconds
        found = self._look(display)
        return {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.steps,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "loss": loss,
            "top1": top1,
            "spread": None if found is None else found.spread,
            "effective_rank": None if found is None else found.effective_rank,
        }

    def _look(self, display) -> Diagnosis | None:
        """At the embedding of the last step; a collapse is told once."""
        found = self.watch.look()
        warning = self.watch.warning(found)
        if warning is not None and display is not None:
            display.warn(warning)
        return found

    def _train_step(self, step: int, index: Tensor) -> Tensor:
        """One step on the images `index`; loss and contrastive top-1 as a tensor, unread."""
        config = self.config
        rate = learning_rate_at(
            step, config.epochs * self.steps, config.learning_rate, config.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = self.images.train[index]
        view1, view2 = (
            self.views(images).contiguous(memory_format=torch.channels_last) for _ in range(2)
        )
        loss = self.model(view1, view2)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.method.update()
        top1 = (self.method.rank == 0).float().mean()
        return torch.stack([loss.detach().float(), top1])

    def _average_statistics(self) -> None:
        """Make the running statistics, which each rank took of its own images, one."""
        for module in self.method.modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                for buffer in (module.running_mean, module.running_var):
                    buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))

    def save(self) -> None:
        """Write checkpoint.pt and metrics.csv; all ranks call it."""
        random = checkpoint.random_state(self.fabric.device)
        randoms = [random]
        if self.config.devices > 1:
            randoms = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(randoms, random)
        if self.fabric.is_global_zero:
            state = {
                "config": vars(self.config),
                "epoch": self.epoch,
                "history": self.history,
                "shares": self.shares.result,
                "seconds": self.seconds,
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "order": self.order.get_state(),
                "random": randoms,
            }
            checkpoint.save_checkpoint(self.folder / checkpoint.NAME, state)
            write_metrics(self.folder / "metrics.csv", self.history)
        self.fabric.barrier()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration.

        Raises:
            FileNotFoundError: No such file.
            ValueError: Not a checkpoint, or one of another configuration; the message says where
                they differ.
        """
        state = checkpoint.load_checkpoint(path)
        differences = self.config.differences(Config(**state["config"]))
        if differences:
            raise ValueError(
                f"{str(path)!r} is of another run ({'; '.join(differences)}): "
                f"choose another --out, or start anew with --resume never"
            )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.shares.result, self.seconds = state["shares"], state["seconds"]
        checkpoint.set_random_state(state["random"][self.fabric.global_rank], self.fabric.device)


def build_method(config: Config, channels: int) -> nn.Module:
    """The method around its untrained backbone; the seed alone decides the weights."""
    backbone, width = initial_backbone(config, channels)
    classes: dict[str, Callable[..., nn.Module]] = {
        "moco": methods.MoCo,
        "simclr": methods.SimCLR,
    }
    return classes[config.method](backbone, width=width, **config.options)


def write_metrics(path: Path, history: list[dict]) -> None:
    """One line per epoch; floats in full, so that equal runs have equal files."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(history)
    replace_file(path, lambda file: file.write(text.getvalue().encode()))
