"""The one table: every loss, its plain PyTorch twin and its inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import plain
import torch
from torch import Tensor

import fastcl.functional as F

# 1; odd; around 64 and 128, the smallest tiles of the kernels; two tiles and a bit.
ROWS = (1, 7, 63, 64, 65, 129, 300)
# One element, not a power of two, the common embedding, more than a row block of a kernel.
WIDTHS = (1, 16, 100, 128, 384)
TEMPERATURES = (1.0, 0.07, 0.01, 0.005)


def _rows(n: int, d: int) -> Tensor:
    """Random directions, lengths from 0.5 to 2: a shorter row amplifies every rounding error."""
    lengths = 0.5 + 1.5 * torch.rand(n, 1, dtype=torch.float64)
    return lengths * plain.unit(torch.randn(n, d, dtype=torch.float64))


def _pair(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Two views that agree about as well as in training: cosine 0.7 on average."""
    x = plain.unit(_rows(n, d))
    return tuple(_rows(n, 1).abs() * plain.unit(x + 0.7 * plain.unit(_rows(n, d))) for _ in "12")


def _two(a: str, b: str) -> Callable[[int, int], dict[str, Tensor]]:
    return lambda n, d: dict(zip((a, b), _pair(n, d), strict=True))


def _moco(n: int, d: int) -> dict[str, Tensor]:
    query, key = _pair(n, d)
    return {"query": query, "key": key, "queue": plain.unit(_rows(3 * n + 1, d))}


def _unpaired(n: int, d: int) -> dict[str, Tensor]:
    query, key = _pair(n, d)
    return {"query": query, "key": key, "negatives": _rows(2 * n + 3, d)}


def _paired(n: int, d: int) -> dict[str, Tensor]:
    query, key = _pair(n, d)
    return {"query": query, "key": key, "negatives": torch.randn(n, 5, d, dtype=torch.float64)}


def _labels(n: int, d: int) -> dict[str, Tensor]:
    z = torch.cat(_pair(n, d))
    return {"z": z, "labels": torch.randint(0, max(2, n // 4), (2 * n,))}


def _clip(n: int, d: int) -> dict[str, Tensor]:
    image, text = _pair(n, d)
    return {"image": image, "text": text, "logit_scale": torch.tensor(1.0, dtype=torch.float64)}


def _siglip(n: int, d: int) -> dict[str, Tensor]:
    return {**_clip(n, d), "logit_bias": torch.tensor(-3.0, dtype=torch.float64)}


@dataclass
class Case:
    name: str  # of the test
    function: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: Callable[[int, int], dict[str, Tensor]]  # rows, width -> float64 tensors
    constants: tuple[str, ...] = ()  # inputs without gradient
    smallest: int = 1  # rows
    kwargs: dict = field(default_factory=dict)

    def arguments(self, n: int, d: int, temperature: float) -> tuple[dict, dict]:
        """Tensors and keyword arguments; the scale of CLIP is one over the temperature."""
        tensors = self.inputs(n, d)
        if "logit_scale" in tensors:
            tensors["logit_scale"] /= temperature
            return tensors, dict(self.kwargs)
        return tensors, {"temperature": temperature, **self.kwargs}


CASES = (
    Case("info_nce", F.info_nce, plain.info_nce, _two("query", "key")),
    Case("info_nce_frozen", F.info_nce, plain.info_nce, _two("query", "key"), ("key",)),
    Case("info_nce_unpaired", F.info_nce, plain.info_nce, _unpaired),
    Case("info_nce_paired", F.info_nce, plain.info_nce, _paired,
         kwargs={"negative_mode": "paired"}),
    Case("nt_xent", F.nt_xent, plain.nt_xent, _two("z0", "z1")),
    Case("dcl", F.dcl, plain.dcl, _two("z0", "z1"), smallest=2),
    Case("flat_nce", F.flat_nce, plain.flat_nce, _two("z0", "z1"), smallest=2),
    Case("sup_con", F.sup_con, plain.sup_con, _labels),
    Case("clip", F.clip, plain.clip, _clip),
    Case("siglip", F.siglip, plain.siglip, _siglip),
    Case("moco", F.moco, plain.moco, _moco, ("key", "queue")),
)  # fmt: skip


def run(function, tensors, constants, kwargs, dtype):
    """Value and gradients, as float64, of a function on inputs rounded to dtype."""
    inputs = {}
    for name, x in tensors.items():
        floating = x.is_floating_point()
        x = x.detach().to(dtype if floating else x.dtype, copy=True)
        inputs[name] = x.requires_grad_(floating and name not in constants)
    loss = function(**inputs, **kwargs)
    loss.backward()
    grads = {name: x.grad.double() for name, x in inputs.items() if x.requires_grad}
    return loss.detach().double(), grads


def rounded(tensors, dtype):
    """The same inputs in float64 after rounding to dtype."""
    return {k: x.to(dtype).double() if x.is_floating_point() else x for k, x in tensors.items()}
