"""What is measured: inputs, the plain PyTorch line, and the products that cannot be avoided."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import fastcl.functional as fastcl

TEMPERATURE = 0.1
BIAS = -10.0  # of SigLIP, where its training starts
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One loss at one size; `units` are similarity-sized products, 2 n m d operations each."""

    loss: str
    n: int  # rows
    m: int  # columns
    d: int  # width
    units: float
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        size = f"{self.n:,}" if self.n == self.m else f"{self.n:,} x {self.m:,}"
        return f"{LABELS[self.loss]} {size} x {self.d}"

    @property
    def flops(self) -> float:
        return self.units * 2 * self.n * self.m * self.d

    def smaller(self, rows: int) -> "Case":
        """The same loss with few rows, for the check against float64."""
        n, m = min(self.n, rows), min(self.m, 4 * rows if self.loss == "moco" else rows)
        return Case(self.loss, n, m, self.d, self.units, self.dtype)

    def inputs(self, device: str, seed: int = 0) -> dict[str, Tensor]:
        """Rows of random direction, never zeros, whose pairs agree as in training."""
        generator = torch.Generator().manual_seed(seed)

        def rows(n: int) -> Tensor:
            return F.normalize(torch.randn(n, self.d, generator=generator), dim=1)

        n = self.n // 2 if self.loss == "nt_xent" else self.n
        x = rows(n)
        pair = [F.normalize(x + 0.7 * rows(n), dim=1) for _ in range(2)]
        tensors = dict(zip(ARGUMENTS[self.loss], pair, strict=True))
        if self.loss == "moco":
            tensors["queue"] = rows(self.m)
        return {k: x.to(device, self.dtype) for k, x in tensors.items()}

    def trained(self) -> tuple[str, ...]:
        """The inputs that receive a gradient."""
        return ARGUMENTS[self.loss][: 1 if self.loss == "moco" else 2]


LABELS = {
    "nt_xent": "NT-Xent",
    "clip": "CLIP",
    "siglip": "SigLIP",
    "moco": "MoCo",
    "info_nce": "InfoNCE",
}
ARGUMENTS = {
    "nt_xent": ("z0", "z1"),
    "clip": ("image", "text"),
    "siglip": ("image", "text"),
    "moco": ("query", "key"),
    "info_nce": ("query", "key"),
}


def fused(loss: str) -> Function:
    """The function of fastcl."""
    if loss == "clip":
        return lambda image, text: fastcl.clip(image, text, 1 / TEMPERATURE)
    if loss == "siglip":
        return lambda image, text: fastcl.siglip(image, text, 1 / TEMPERATURE, BIAS)
    function = getattr(fastcl, loss)
    return lambda **tensors: function(**tensors, temperature=TEMPERATURE)


def _plain_nt_xent(z0: Tensor, z1: Tensor) -> Tensor:
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    s = z @ z.T / TEMPERATURE
    s.fill_diagonal_(-torch.inf)
    return F.cross_entropy(s, torch.arange(len(z), device=z.device).roll(len(z0)))


def _plain_clip(image: Tensor, text: Tensor) -> Tensor:
    s = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / TEMPERATURE
    labels = torch.arange(len(s), device=s.device)
    return (F.cross_entropy(s, labels) + F.cross_entropy(s.T, labels)) / 2


def _plain_siglip(image: Tensor, text: Tensor) -> Tensor:
    t = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / TEMPERATURE + BIAS
    sign = 2 * torch.eye(len(t), dtype=t.dtype, device=t.device) - 1
    return -F.logsigmoid(sign * t).sum() / len(t)


def _plain_info_nce(query: Tensor, key: Tensor) -> Tensor:
    s = F.normalize(query, dim=1) @ F.normalize(key, dim=1).T / TEMPERATURE
    return F.cross_entropy(s, torch.arange(len(s), device=s.device))


def _plain_moco(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    s = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / TEMPERATURE
    return F.cross_entropy(s, torch.zeros(len(s), dtype=torch.long, device=s.device))


PLAIN: dict[str, Function] = {
    "nt_xent": _plain_nt_xent,
    "clip": _plain_clip,
    "siglip": _plain_siglip,
    "info_nce": _plain_info_nce,
    "moco": _plain_moco,
}


def _nt_xent(rows: int, d: int, dtype: torch.dtype = torch.float32) -> Case:
    return Case("nt_xent", rows, rows, d, 2, dtype)


SUITES: dict[str, tuple[Case, ...]] = {
    "quick": (_nt_xent(128, 128), _nt_xent(512, 128), _nt_xent(2048, 128)),
    "cpu": (
        _nt_xent(128, 128),  # 64 pairs: where overheads rule
        _nt_xent(512, 128),
        _nt_xent(2048, 128),
        _nt_xent(8192, 128),
        _nt_xent(8192, 512),  # where products rule
        Case("clip", 4096, 4096, 512, 4),
        Case("siglip", 4096, 4096, 512, 3),
        Case("moco", 256, 65536, 128, 2),
    ),
    "gpu": (
        _nt_xent(8192, 128, torch.bfloat16),
        _nt_xent(32768, 128, torch.bfloat16),
        Case("clip", 32768, 32768, 512, 4, torch.bfloat16),
        Case("clip", 65536, 65536, 512, 4, torch.bfloat16),
        Case("clip", 65536, 65536, 768, 4, torch.bfloat16),
        Case("siglip", 65536, 65536, 768, 3, torch.bfloat16),
        Case("moco", 256, 65536, 128, 2, torch.bfloat16),
        Case("moco", 4096, 65536, 256, 2, torch.bfloat16),
        Case("info_nce", 65536, 65536, 512, 4, torch.bfloat16),
    ),
}
