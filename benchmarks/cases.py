"""What is measured: inputs of one size, the step that is timed, the work it cannot avoid."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.1
BIAS = -10.0  # of SigLIP, where its training starts
MOMENTUM = 0.999
EPSILON, ITERATIONS = 0.05, 3  # of Sinkhorn's algorithm, as in SwAV
BANK_MOMENTUM = 0.5  # as in InstDisc
CLASSES = 64  # of SupCon: several positives per row, every row has one
Function = Callable[..., Tensor | None]

LABELS = {
    "nt_xent": "NT-Xent",
    "sup_con": "SupCon",
    "clip": "CLIP",
    "siglip": "SigLIP",
    "info_nce": "InfoNCE",
    "moco": "MoCo",
    "nce": "NCE",
    "sinkhorn": "Sinkhorn",
    "swav": "SwAV",
    "bank_update": "bank update",
    "moco_push": "MoCo and push",
    "momentum": "momentum",
}
ARGUMENTS = {
    "nt_xent": ("z0", "z1"),
    "sup_con": ("z",),
    "clip": ("image", "text"),
    "siglip": ("image", "text"),
    "info_nce": ("query", "key"),
    "moco": ("query", "key"),
    "moco_push": ("query", "key"),
}


@dataclass(frozen=True)
class Case:
    """One loss at one size; `units` are similarity-sized products, 2 n m d operations each."""

    loss: str
    n: int  # rows
    m: int  # columns
    d: int  # width
    units: float
    dtype: torch.dtype = torch.float32
    bfloat16: bool = False  # also time bfloat16 rows beside, in the same rounds
    alone: bool = False  # of all variants only fastcl: a step takes seconds

    measure = "FLOP"

    @property
    def name(self) -> str:
        size = f"{self.n:,}" if self.n == self.m else f"{self.n:,} x {self.m:,}"
        return f"{LABELS[self.loss]} {size} x {self.d}"

    @property
    def work(self) -> float:
        """Operations of the products that no linear-memory algorithm avoids."""
        return self.units * 2 * self.n * self.m * self.d

    @property
    def stateful(self) -> bool:
        """Whether a step changes what the next one computes."""
        return self.loss == "moco_push"

    def smaller(self, rows: int) -> "Case":
        """The same loss with few rows, for the check against float64."""
        queue = self.loss.startswith("moco")
        n, m = min(self.n, rows), min(self.m, 4 * rows if queue else rows)
        return replace(self, n=n, m=m)

    def inputs(self, device: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Rows of random direction, never zeros, whose pairs agree as in training."""
        generator = torch.Generator().manual_seed(0)

        def rows(n: int) -> Tensor:
            return F.normalize(torch.randn(n, self.d, generator=generator), dim=1)

        n = self.n // 2 if self.loss == "nt_xent" else self.n
        x = rows(n)
        names = ARGUMENTS[self.loss]
        views = [F.normalize(x + 0.7 * rows(n), dim=1) for _ in names]
        tensors = dict(zip(names, views, strict=True))
        if self.loss.startswith("moco"):
            tensors["queue"] = rows(self.m)
        tensors = {k: v.to(device, dtype or self.dtype) for k, v in tensors.items()}
        if self.loss == "moco_push":
            tensors["pointer"] = torch.zeros((), dtype=torch.int64, device=device)
        if self.loss == "sup_con":
            tensors["labels"] = torch.arange(n, device=device) % max(1, min(CLASSES, n // 2))
        return tensors

    def trained(self) -> tuple[str, ...]:
        """The inputs that receive a gradient."""
        return ARGUMENTS[self.loss][: 1 if self.loss.startswith("moco") else 2]

    def step(self, function: Function, inputs: dict[str, Tensor]) -> Tensor:
        """One forward and backward; gradients are new tensors each time."""
        for name in self.trained():
            inputs[name].grad = None
            inputs[name].requires_grad_()
        loss = function(**inputs)
        loss.backward()
        return loss

    def results(self, loss: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """What a step has computed: loss, gradients, and the queue it pushed to."""
        pushed = [inputs["queue"]] if self.loss == "moco_push" else []
        return [loss.detach(), *(inputs[k].grad for k in self.trained()), *pushed]

    def kept(self) -> float:
        """Bytes of gradients: a step returns them, so they are not extra memory."""
        rows = self.n * len(self.trained()) / (2 if self.loss == "nt_xent" else 1)
        return rows * self.d * self.dtype.itemsize


@dataclass(frozen=True)
class Update:
    """The momentum update of a whole network: bytes instead of operations."""

    network: str
    dtype: torch.dtype = torch.float32  # of the online network; its twin is float32
    limit: int = 0  # cut every dimension to this, for the check against float64

    # A twin that moves on costs the next step nothing, so all variants share it.
    loss, measure, m, d = "momentum", "B", 0, 0
    bfloat16 = alone = stateful = False

    @property
    def name(self) -> str:
        online = "" if self.dtype == torch.float32 else "bf16 to "
        return f"momentum {self.network} {online}fp32"

    @property
    def n(self) -> int:
        """Parameters."""
        return sum(torch.Size(s).numel() for s in self.shapes())

    @property
    def work(self) -> float:
        """Bytes: the twin is read and written, the online network read."""
        return self.n * (8.0 + self.dtype.itemsize)

    def shapes(self) -> list[tuple[int, ...]]:
        shapes = NETWORKS[self.network]()
        return [tuple(min(x, self.limit) for x in s) for s in shapes] if self.limit else shapes

    def smaller(self, rows: int) -> "Update":
        return replace(self, limit=rows)

    def inputs(self, device: str, dtype: torch.dtype | None = None) -> dict[str, list[Tensor]]:
        # Drawn where they are used: on one core, those of ViT-L take seconds.
        generator = torch.Generator(device).manual_seed(0)
        online = [torch.randn(s, generator=generator, device=device) for s in self.shapes()]
        target = [x + 0.1 for x in online]
        return {"target": target, "online": [x.to(dtype or self.dtype) for x in online]}

    def step(self, function: Function, inputs: dict[str, list[Tensor]]) -> None:
        function(**inputs)

    def results(self, loss: None, inputs: dict[str, list[Tensor]]) -> list[Tensor]:
        return inputs["target"]

    def kept(self) -> float:
        return 0.0


def _resnet50() -> list[tuple[int, ...]]:
    """Convolutions, normalisations and classifier, in their order."""

    def convolution(out: int, width: int, size: int) -> list[tuple[int, ...]]:
        return [(out, width, size, size), (out,), (out,)]

    shapes, width = convolution(64, 3, 7), 64
    for blocks, inner in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            shapes += convolution(inner, width, 1) + convolution(inner, inner, 3)
            shapes += convolution(4 * inner, inner, 1)
            shapes += convolution(4 * inner, width, 1) if block == 0 else []
            width = 4 * inner
    return [*shapes, (1000, 2048), (1000,)]


def _vit_large() -> list[tuple[int, ...]]:
    """ViT-L/16: embedding of patches, 24 blocks, last normalisation."""
    d, shapes = 1024, [(1, 1, 1024), (1, 197, 1024), (1024, 3, 16, 16), (1024,)]
    for _ in range(24):
        shapes += [(d,), (d,), (3 * d, d), (3 * d,), (d, d), (d,)]
        shapes += [(d,), (d,), (4 * d, d), (4 * d,), (d, 4 * d), (d,)]
    return [*shapes, (d,), (d,)]


NETWORKS = {"ResNet-50": _resnet50, "ViT-L": _vit_large}
