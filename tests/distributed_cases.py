"""The losses over several ranks: their rows cut into unequal parts, and the plain call."""

from dataclasses import dataclass, field

import torch

import fastcl.functional as F
from fastcl import distributed as D

WIDTH = 5


@dataclass
class Loss:
    name: str
    inputs: tuple[str, ...]  # rows of every rank, or "labels"
    scalars: dict[str, float] = field(default_factory=dict)
    kwargs: dict = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("gather", "ring")

    @property
    def title(self):
        ids = ["ids"] if "ids" in self.inputs else []
        more = [v if k == "duplicates" else k for k, v in self.kwargs.items() if k != "temperature"]
        learned = [x for x in self.scalars if x == "temperature"]
        return "-".join([self.name, *self.frozen, *ids, *learned, *more])


HEAT = {"temperature": 0.2}  # learned
SCALE, BIAS, IGNORE = {"logit_scale": 14.0}, {"logit_bias": -3.0}, {"duplicates": "ignore"}
LOSSES = (
    Loss("info_nce", ("query", "key"), kwargs={"temperature": 0.1}),
    Loss("info_nce", ("query", "key"), frozen=("key",)),
    Loss("clip", ("image", "text"), SCALE),
    Loss("clip", ("image", "text"), SCALE, frozen=("text",)),
    Loss("clip", ("image", "text", "ids"), SCALE),
    Loss("siglip", ("image", "text"), SCALE | BIAS),
    Loss("siglip", ("image", "text", "ids"), SCALE | BIAS, frozen=("image",)),
    Loss("nt_xent", ("z0", "z1"), kwargs={"temperature": 0.2}),
    Loss("dcl", ("z0", "z1")),
    Loss("flat_nce", ("z0", "z1")),
    Loss("sup_con", ("z", "labels"), kwargs={"base_temperature": 0.1}),
    Loss("moco", ("query", "key"), frozen=("key",), modes=("",)),
    Loss("info_nce", ("query", "key", "ids")),
    Loss("info_nce", ("query", "key", "ids"), kwargs=IGNORE),
    Loss("info_nce", ("query", "key", "ids"), kwargs=IGNORE, frozen=("key",)),
    Loss("clip", ("image", "text", "ids"), SCALE, IGNORE),
    Loss("clip", ("image", "text", "ids"), SCALE, IGNORE, frozen=("text",)),
    Loss("siglip", ("image", "text", "ids"), SCALE | BIAS, IGNORE),
    Loss("nt_xent", ("z0", "z1", "ids")),
    Loss("nt_xent", ("z0", "z1", "ids"), kwargs=IGNORE),
    Loss("moco", ("query", "key", "ids"), frozen=("key",), modes=("",)),
    Loss("moco", ("query", "key", "ids"), kwargs=IGNORE, frozen=("key",), modes=("",)),
    Loss("info_nce", ("query", "key"), HEAT),
    Loss("nt_xent", ("z0", "z1"), HEAT),
    Loss("nt_xent", ("z0", "z1", "ids"), HEAT, IGNORE),
    Loss("dcl", ("z0", "z1"), HEAT),
    Loss("sup_con", ("z", "labels"), HEAT, {"base_temperature": 0.1}),
    Loss("moco", ("query", "key"), HEAT, frozen=("key",), modes=("",)),
    Loss("info_nce", ("query", "key", "ids"), HEAT, IGNORE),
)


def batch(loss, counts, seed=0, dtype=torch.float64):
    """Inputs of every rank: a dict of lists of tensors."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(counts)
    shared = torch.randn(n, WIDTH, dtype=torch.float64, generator=generator)
    out = {}
    for name in loss.inputs:
        if name in ("labels", "ids"):
            x = torch.randint(0, max(2, n // 2), (n,), generator=generator)
        else:
            noise = torch.randn(n, WIDTH, dtype=torch.float64, generator=generator)
            x = (shared + 0.5 * noise).to(dtype)
        out[name] = list(x.split(counts))
    return out


def scalars(loss, dtype=torch.float64):
    return {k: torch.tensor(v, dtype=dtype, requires_grad=True) for k, v in loss.scalars.items()}


def extras(loss, dtype=torch.float64):
    """What all ranks share: the queue, and the ids of its rows."""
    if loss.name != "moco":
        return {}
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(7, WIDTH, dtype=torch.float64, generator=generator).to(dtype)
    queue = {"queue": torch.nn.functional.normalize(rows, dim=1)}
    return {**queue, "queue_ids": torch.arange(7) % 3} if "ids" in loss.inputs else queue


def _leaf(loss, name, x):
    return x.clone().requires_grad_(x.is_floating_point() and name not in loss.frozen)


def _call(function, loss, rows, scalar, extra):
    """Value and gradients of rows and scalars."""
    value = function(**rows, **scalar, **extras(loss, _dtype(rows)), **loss.kwargs, **extra)
    value.backward()
    wanted = {k: x.grad for k, x in {**rows, **scalar}.items() if x.requires_grad}
    return value.detach(), wanted


def _dtype(rows):
    return next(x.dtype for x in rows.values() if x.is_floating_point())


def single(loss, parts, dtype=torch.float64):
    """One process with the global batch."""
    rows = {k: _leaf(loss, k, torch.cat(list(x))) for k, x in parts.items()}
    return _call(getattr(F, loss.name), loss, rows, scalars(loss, dtype), {})


def of_rank(loss, parts, rank, extra, dtype=torch.float64):
    """What a rank of several computes."""
    rows = {k: _leaf(loss, k, x[rank]) for k, x in parts.items()}
    return _call(getattr(D, loss.name), loss, rows, scalars(loss, dtype), extra)


def assert_exact(loss, parts, results, tolerance=1e-10):
    """Values on every rank, rows' gradients after the average over ranks, scalars' on each."""
    value, grads = single(loss, parts)
    size = len(results)
    close = {"rtol": tolerance, "atol": tolerance}
    for got, _ in results:
        torch.testing.assert_close(got, value, **close)
    for name, want in grads.items():
        if name in loss.scalars:
            for _, got in results:
                torch.testing.assert_close(got[name], want, **close)
        else:
            got = torch.cat([mine[name] for _, mine in results]) / size
            torch.testing.assert_close(got, want, **close)
