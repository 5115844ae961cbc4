"""Cases that move bytes: noise-contrastive estimation, SwAV's assignments and loss, a bank's
update."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Noise-contrastive estimation over rows of a bank, InstDisc's: forward and backward."""

    n: int  # rows
    m: int  # noise samples per row
    d: int  # width
    size: int  # rows of the bank
    dtype: torch.dtype = torch.float32

    loss, measure = "nce", "B"
    bfloat16 = alone = stateful = False

    @property
    def name(self) -> str:
        return f"NCE {self.n:,} x {self.m:,} of {self.size:,} x {self.d}"

    @property
    def work(self) -> float:
        """Bytes of the rows that are drawn, read once; a bank that fits a cache is read there."""
        return float(self.n * (1 + self.m) * self.d * self.dtype.itemsize)

    def smaller(self, rows: int) -> "Noise":
        n, m, size = min(self.n, rows), min(self.m, rows), min(self.size, 4 * rows)
        return replace(self, n=n, m=m, size=size)

    def inputs(self, device: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Rows that have begun to agree with their own in the bank."""
        generator = torch.Generator().manual_seed(0)
        bank = F.normalize(torch.randn(self.size, self.d, generator=generator), dim=1)
        index = torch.randint(self.size, (self.n, 1 + self.m), generator=generator)
        x = bank[index[:, 0]] + 0.1 * torch.randn(self.n, self.d, generator=generator)
        x, bank = (y.to(device, dtype or self.dtype) for y in (x, bank))
        return {"x": x, "bank": bank, "index": index.to(device)}

    def step(self, function: Callable, inputs: dict[str, Tensor]) -> Tensor:
        inputs["x"].grad = None
        inputs["x"].requires_grad_()
        loss = function(**inputs)
        loss.backward()
        return loss

    def results(self, loss: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        return [loss.detach(), inputs["x"].grad]

    def kept(self) -> float:
        return float(self.n * self.d * self.dtype.itemsize)


@dataclass(frozen=True)
class Assignment:
    """SwAV's balanced assignments of n samples to m prototypes, three rounds."""

    n: int
    m: int
    dtype: torch.dtype = torch.float32

    loss, measure, d = "sinkhorn", "B", 0
    bfloat16 = alone = stateful = False
    iterations = 3

    @property
    def name(self) -> str:
        return f"Sinkhorn {self.n:,} x {self.m:,}"

    @property
    def work(self) -> float:
        """Bytes: the scores are read for the columns of every round and for the result, which is
        written."""
        read = (self.iterations + 1) * self.dtype.itemsize
        return float(self.n * self.m * (read + torch.float32.itemsize))

    def smaller(self, rows: int) -> "Assignment":
        return replace(self, n=min(self.n, rows), m=min(self.m, rows))

    def inputs(self, device: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Cosines as 128 wide rows have them."""
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(self.n, self.m, generator=generator) / 128**0.5
        return {"scores": scores.to(device, dtype or self.dtype)}

    def step(self, function: Callable, inputs: dict[str, Tensor]) -> None:
        inputs["assigned"] = function(inputs["scores"])

    def results(self, loss: None, inputs: dict[str, Tensor]) -> list[Tensor]:
        return [inputs["assigned"]]

    def kept(self) -> float:
        return float(self.n * self.m * torch.float32.itemsize)


@dataclass(frozen=True)
class Prediction(Assignment):
    """SwAV's loss of two views of n samples, each of which predicts the other's assignment:
    forward and backward."""

    loss = "swav"

    @property
    def name(self) -> str:
        return f"SwAV 2 x {self.n:,} x {self.m:,}"

    @property
    def work(self) -> float:
        """Bytes: beside the assignments' the scores and the targets are read, and the gradients
        written."""
        predicted = self.n * self.m * (2 * self.dtype.itemsize + torch.float32.itemsize)
        return 2 * (super().work + predicted)

    def inputs(self, device: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Cosines of two views that agree as in training."""
        one = super().inputs(device, torch.float64)["scores"]
        other = one + 0.7 * one.roll(1, 0)
        scores = {"scores0": one, "scores1": other / 1.49**0.5}
        return {k: x.to(dtype or self.dtype) for k, x in scores.items()}

    def step(self, function: Callable, inputs: dict[str, Tensor]) -> Tensor:
        for x in inputs.values():
            x.grad = None
            x.requires_grad_()
        loss = function(**inputs)
        loss.backward()
        return loss

    def results(self, loss: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        return [loss.detach(), *(x.grad for x in inputs.values())]

    def kept(self) -> float:
        return float(2 * self.n * self.m * self.dtype.itemsize)


@dataclass(frozen=True)
class BankUpdate:
    """New embeddings of n samples into a bank of m rows."""

    n: int
    m: int
    d: int
    dtype: torch.dtype = torch.float32

    # A bank that moves on costs the next step nothing, so all variants share it.
    loss, measure = "bank_update", "B"
    bfloat16 = alone = stateful = False

    @property
    def name(self) -> str:
        return f"bank update {self.n:,} of {self.m:,} x {self.d}"

    @property
    def work(self) -> float:
        """Bytes: old and new rows are read, and rows written."""
        return float(3 * self.n * self.d * self.dtype.itemsize + self.n * torch.int64.itemsize)

    def smaller(self, rows: int) -> "BankUpdate":
        return replace(self, n=min(self.n, rows), m=min(self.m, 4 * rows))

    def inputs(self, device: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Every sample at most once, as in an epoch."""
        generator = torch.Generator().manual_seed(0)
        bank = F.normalize(torch.randn(self.m, self.d, generator=generator), dim=1)
        index = torch.randperm(self.m, generator=generator)[: self.n]
        x = torch.randn(self.n, self.d, generator=generator)
        x, bank = (y.to(device, dtype or self.dtype) for y in (x, bank))
        return {"bank": bank, "index": index.to(device), "x": x}

    def step(self, function: Callable, inputs: dict[str, Tensor]) -> None:
        function(**inputs)

    def results(self, loss: None, inputs: dict[str, Tensor]) -> list[Tensor]:
        return [inputs["bank"]]

    def kept(self) -> float:
        return 0.0
