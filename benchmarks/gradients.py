"""Gradients under data parallel beside one process: `python -m benchmarks.gradients`.

Every variant runs on several gloo ranks in float64 on parts of one batch; its gradients are
averaged over the ranks, as DistributedDataParallel does, and compared with those of the same
library in one process with the whole batch. Libraries that are not installed are left out
(`make bench-peers` installs them). Writes results/gradients.csv and .md.
"""

import argparse
import csv
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

import fastcl.functional
from fastcl import distributed

from . import report
from .absent import stand_in_for_torchvision

ROWS, WIDTH = 16, 6
SCALE, BIAS = 10.0, -3.0
EXACT = 1e-10


@dataclass
class Variant:
    library: str
    name: str
    loss: Callable[[Tensor, Tensor], Tensor]  # on a rank's rows, or on all in one process
    whole: Callable[[Tensor, Tensor], Tensor] | None = None  # in one process, where it is another


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


def _scalars() -> tuple[Tensor, Tensor]:
    return torch.tensor(SCALE).double(), torch.tensor(BIAS).double()


def _labels(n: int) -> Tensor:
    """Labels of this rank's rows; every pair of neighbours in the batch shares one."""
    counts = distributed.gather(torch.tensor([n]), equal=True).tolist()
    return (torch.arange(n) + sum(counts[: distributed.rank()])) // 2


def _fastcl() -> list[Variant]:
    functional, scalars = fastcl.functional, _scalars()
    found = []
    for mode in ("gather", "ring"):
        for name in ("info_nce", "nt_xent", "dcl", "flat_nce"):
            ours = getattr(distributed, name)
            found.append(Variant(
                "fastcl", f"{name} {mode}",
                lambda a, b, ours=ours, mode=mode: ours(a, b, mode=mode, temperature=0.1),
                lambda a, b, name=name: getattr(functional, name)(a, b, temperature=0.1),
            ))  # fmt: skip
        found += [
            Variant("fastcl", f"clip {mode}",
                    lambda a, b, mode=mode: distributed.clip(a, b, scalars[0], mode=mode),
                    lambda a, b: functional.clip(a, b, scalars[0])),
            Variant("fastcl", f"siglip {mode}",
                    lambda a, b, mode=mode: distributed.siglip(a, b, *scalars, mode=mode),
                    lambda a, b: functional.siglip(a, b, *scalars)),
            Variant("fastcl", f"sup_con {mode}",
                    lambda a, b, mode=mode: distributed.sup_con(a + b, _labels(len(a)), mode=mode),
                    lambda a, b: functional.sup_con(a + b, _labels(len(a)))),
        ]  # fmt: skip
    queue = _unit(torch.linspace(-1, 1, 5 * WIDTH).double().view(5, WIDTH).cos())
    found += [
        Variant("fastcl", "moco", lambda a, b: distributed.moco(a, b, queue),
                lambda a, b: functional.moco(a, b, queue)),
        Variant("fastcl", "any loss on gather_with_gradient",
                lambda a, b: _clip(*map(distributed.gather_with_gradient, (a, b))), _clip),
        Variant("fastcl", "mean of a loss per row",
                lambda a, b: distributed.mean((a - b).square().sum(1)),
                lambda a, b: (a - b).square().sum(1).mean()),
    ]  # fmt: skip
    return found


def _clip(a: Tensor, b: Tensor) -> Tensor:
    s, labels = SCALE * _unit(a) @ _unit(b).T, torch.arange(len(a))
    return (F.cross_entropy(s, labels) + F.cross_entropy(s.T, labels)) / 2


def _reinserted(a: Tensor, b: Tensor) -> Tensor:
    """Rows gathered without gradient, this rank's own put back in (the way of SimCSE)."""
    parts = []
    for x in (a, b):
        start = sum(distributed.gather(torch.tensor([len(x)]), equal=True)[: distributed.rank()])
        everyone = distributed.gather(x)
        parts.append(torch.cat([everyone[:start], x, everyone[start + len(x) :]]))
    return _clip(*parts)


def _patterns() -> list[Variant]:
    return [
        Variant("plain PyTorch", "no gather: mean of the ranks' losses", _clip),
        Variant("plain PyTorch", "gather without gradient, own rows put back", _reinserted, _clip),
        Variant("plain PyTorch", "loss per row, mean of the ranks' means",
                lambda a, b: (a - b).square().sum(1).mean()),
    ]  # fmt: skip


def _lightly() -> list[Variant]:
    from lightly.loss import DCLLoss, NTXentLoss

    found = []
    for kind in (NTXentLoss, DCLLoss):
        for gather in (True, False):
            found.append(Variant(
                "lightly", f"{kind.__name__} gather_distributed={gather}",
                lambda a, b, kind=kind, gather=gather: kind(
                    temperature=0.1, gather_distributed=gather
                )(a, b),
                lambda a, b, kind=kind: kind(temperature=0.1)(a, b),
            ))  # fmt: skip
    return found


def _open_clip() -> list[Variant]:
    from open_clip.loss import ClipLoss, SigLipLoss

    scale, bias = _scalars()
    place = {"rank": distributed.rank(), "world_size": distributed.world_size()}
    found = []
    for local in (False, True):
        for gather in (False, True):
            options = {"local_loss": local, "gather_with_grad": gather, **place}
            found.append(Variant(
                "open_clip", f"ClipLoss local_loss={local} gather_with_grad={gather}",
                lambda a, b, options=options: ClipLoss(**options)(_unit(a), _unit(b), scale),
                lambda a, b: ClipLoss()(_unit(a), _unit(b), scale),
            ))  # fmt: skip
    for kind in ("bidir", "shift", "reduce", "gather"):
        found.append(Variant(
            "open_clip", f"SigLipLoss dist_impl={kind}",
            lambda a, b, kind=kind: SigLipLoss(dist_impl=kind, **place)(
                _unit(a), _unit(b), scale, bias
            ),
            lambda a, b: SigLipLoss()(_unit(a), _unit(b), scale, bias),
        ))  # fmt: skip
    return found


def _metric_learning() -> list[Variant]:
    from pytorch_metric_learning.losses import NTXentLoss
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

    return [
        Variant(
            "pytorch-metric-learning", f"DistributedLossWrapper efficient={efficient}",
            lambda a, b, efficient=efficient: DistributedLossWrapper(
                NTXentLoss(), efficient=efficient
            )(a + b, _labels(len(a))),
            lambda a, b: NTXentLoss()(a + b, _labels(len(a))),
        )
        for efficient in (False, True)
    ]  # fmt: skip


LIBRARIES = {
    "lightly": _lightly, "open_clip": _open_clip, "pytorch_metric_learning": _metric_learning,
}  # fmt: skip


def variants(unequal: bool) -> list[Variant]:
    """Where ranks hold different numbers of rows, the libraries are left out: their collectives
    take equal ones, and end the process otherwise."""
    stand_in_for_torchvision()
    found = _fastcl() + _patterns()
    if unequal:
        return found
    for module, make in LIBRARIES.items():
        if importlib.util.find_spec(module) is not None:
            found += make()
    return found


def _step(loss: Callable[[Tensor, Tensor], Tensor], rows: slice) -> Tensor:
    """The value and the gradient of two linear encoders, end to end: [1 + parameters]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator)
    y = x + 0.3 * torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator)
    weight = torch.randn(2, WIDTH, WIDTH, dtype=torch.float64, generator=generator)
    weight.requires_grad_()
    value = loss(x[rows] @ weight[0], y[rows] @ weight[1])
    value.backward()
    return torch.cat([value.detach().double().reshape(1), weight.grad.flatten()])


def _rank(rank: int, counts: list[int], store: str, out: str) -> None:
    torch.set_num_threads(1)
    world = len(counts)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    start, results = sum(counts[:rank]), []
    for variant in variants(len(set(counts)) > 1):
        try:
            got = _step(variant.loss, slice(start, start + counts[rank]))
        except (RuntimeError, ValueError, TypeError) as reason:
            got, why = None, str(reason).splitlines()[0]
        everyone = [None] * world
        dist.all_gather_object(everyone, got)
        if any(x is None for x in everyone):
            results.append(why if got is None else "another rank failed")
        else:
            results.append(torch.stack(everyone).mean(0))
    if rank == 0:
        torch.save(results, out)
    dist.destroy_process_group()


def measure(counts: list[int]) -> list[dict]:
    """One row per variant: how its averaged gradient compares with one process."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/results.pt"
        mp.spawn(_rank, args=(counts, f"{folder}/store", out), nprocs=len(counts))
        results = torch.load(out)
    rows = []
    for variant, got in zip(variants(len(set(counts)) > 1), results, strict=True):
        row = {
            "library": variant.library,
            "variant": variant.name,
            "rows": "+".join(map(str, counts)),
        }
        if isinstance(got, str):
            print(f"{variant.library} {variant.name} cannot run: {got}")
            continue
        want = _step(variant.whole or variant.loss, slice(None))
        g, w = got[1:], want[1:]
        rows.append(row | {
            "loss_ratio": (got[0] / want[0]).item(),
            "gradient_ratio": (g.norm() / w.norm()).item(),
            "cosine": F.cosine_similarity(g, w, dim=0).item(),
            "error": ((g - w).norm() / w.norm()).item(),
        })  # fmt: skip
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        "| library | variant | rows per rank | loss | gradient | cosine | exact |",
        "|" + " --- |" * 7,
    ]
    for row in rows:
        exact = "yes" if row["error"] <= EXACT else f"no: off by {row['error']:.1%}"
        lines.append(
            "| {library} | {variant} | {rows} | {loss_ratio:.3f} | {gradient_ratio:.3f} | "
            "{cosine:.4f} | ".format(**row)
            + exact
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradients", description=__doc__)
    parser.add_argument("--output", type=Path, default=report.RESULTS / "gradients")
    options = parser.parse_args()
    rows = measure([8, 8]) + measure([5, 11])
    where = report.circumstances("cpu")
    with options.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*where, *rows[0]])
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({**where, **shown})
    note = (
        "Ratios and cosine: gradients averaged over two ranks against one process with all 16 "
        f"rows, in float64; exact: within {EXACT:.0e}. Loss: the mean of what the ranks report.\n"
    )
    options.output.with_suffix(".md").write_text(table(rows) + "\n" + note)
    print(table(rows))


if __name__ == "__main__":
    main()
