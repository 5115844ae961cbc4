"""Training of `benchmarks.accuracy`: methods side by side on the same crops, and from a checkpoint.

A checkpoint holds everything that the rest depends on: whoever is killed at any moment goes on from
the last one to the same weights.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fastcl._files import replace_file
from fastcl.evaluate.features import extract
from fastcl.evaluate.knn import knn_predict
from fastcl.evaluate.linear import linear_probe
from fastcl.pretrain.data import Images
from fastcl.pretrain.optimizer import learning_rate_at

from .accuracy_methods import Crops, Setting

EVERY = 20.0  # seconds between checkpoints of a few MB


class Runner:
    """A method with its optimiser, and the mean loss of every epoch."""

    def __init__(self, method: nn.Module, rate: float) -> None:
        self.method = method
        trained = [p for p in method.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.01, fused=True)
        self.losses: list[float] = []  # sums, until an epoch is over

    def step(self, crops: list[Tensor], rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.method(*crops)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.method.update()
        return loss.item()

    def state(self) -> dict:
        # lightly's memory bank is a buffer that its state_dict leaves out.
        return {
            "method": self.method.state_dict(), "buffers": dict(self.method.named_buffers()),
            "optimizer": self.optimizer.state_dict(), "losses": self.losses,
        }  # fmt: skip

    def load(self, state: dict) -> None:
        self.method.load_state_dict(state["method"])
        for name, buffer in self.method.named_buffers():
            buffer.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = state["losses"]


class Training:
    """Methods, by their names, that see the same crops of the images at every step."""

    def __init__(self, setting: Setting, methods: dict[str, nn.Module], images: Images) -> None:
        self.setting, self.step = setting, 0
        self.steps = setting.epochs * setting.steps
        self.crops = Crops(setting, images)
        self.runners = {name: Runner(method, setting.rate) for name, method in methods.items()}

    def run(self, path: Path, begun: dict, every: float = EVERY) -> dict:
        """From the checkpoint, if there is one, to the last step.

        Args:
            path: Of the checkpoint.
            begun: What is known of this process.
            every: Seconds between checkpoints.

        Returns:
            begun of the process that made the first step.
        """
        if path.exists():
            begun = self.load(path)
        saved = time.monotonic()
        while self.step < self.steps:
            self.one()
            if self.step == self.steps or time.monotonic() - saved >= every:
                self.save(path, begun)
                saved = time.monotonic()
            if self.step % self.setting.steps == 0:
                self.tell()
        return begun

    def save(self, path: Path, begun: dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"step": self.step, "begun": begun}
        state |= {name: runner.state() for name, runner in self.runners.items()}
        replace_file(path, lambda file: torch.save(state, file))

    def load(self, path: Path) -> dict:
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        for name, runner in self.runners.items():
            runner.load(state[name])
        return state["begun"]

    def tell(self) -> None:
        losses = (f"{name} {runner.losses[-1]:.4f}" for name, runner in self.runners.items())
        print(f"{self.setting.name}: step {self.step} of {self.steps}, loss", *losses, flush=True)

    def one(self) -> None:
        """The next step of every method."""
        epoch, k = divmod(self.step, self.setting.steps)
        crops = self.crops.at(self.step)
        rate = learning_rate_at(self.step, self.steps, self.setting.rate, 0.1)
        for runner in self.runners.values():
            if k == 0:
                runner.losses.append(0.0)
            runner.losses[epoch] += runner.step(crops, rate) / self.setting.steps
        self.step += 1

    def turns(self) -> Iterator[dict[str, float]]:
        """Seconds of a step of each method, one after the other on the same crops, in an order
        that turns."""
        while True:
            crops, found = self.crops.at(self.step), {}
            names = list(self.runners)[:: 1 - 2 * (self.step % 2)]
            for name in names:
                started = time.perf_counter()
                self.runners[name].step(crops, self.setting.rate)
                found[name] = time.perf_counter() - started
            self.step += 1
            yield found


def scores(backbone: nn.Module, images: Images) -> dict[str, float]:
    """Accuracy on the test split of 20 nearest neighbours and of a linear classifier, of all
    training images with their labels."""
    train, test = (extract(backbone, x, images.statistics()) for x in (images.train, images.test))
    labels, truth = images.train_labels, images.test_labels
    found = knn_predict(test, train, labels, k=20, classes=len(images.classes))
    return {
        "knn": (found == truth).float().mean().item(),
        "probe": linear_probe(train, labels, test, truth).accuracy,
    }
