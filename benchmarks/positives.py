"""What every kind of positive costs: `python -m benchmarks.positives`.

Loss and gradient with an option beside the same loss without it, and beside plain PyTorch, which
forms the matrix; in turn in one process. Rows go to results/positives.csv in the place of what the
same machine had measured before, a table to results/positives.md.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as P
from torch import Tensor

import fastcl.functional as F

from . import report, tables
from .timing import interleaved, quantiles

ROWS = 4096
T = 0.1
COLUMNS = "case", "variant", "median_ms", "q20_ms", "q80_ms", "samples", "wanted"


class Cost(NamedTuple):
    """An option, the same loss without it, and with it in plain PyTorch; of rows that learn."""

    name: str
    ours: Callable[..., Tensor]
    without: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    rows: tuple[Tensor, ...]
    wanted: float | None  # at most so many times as long as without


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return P.normalize(a, dim=1) @ P.normalize(b, dim=1).T


def _mean(s: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits with targets of any weight."""
    return -(y / y.sum(1, keepdim=True).clamp(min=1e-12) * s.log_softmax(1)).sum(1).mean()


def _own(s: Tensor) -> Tensor:
    return P.cross_entropy(s, torch.arange(len(s)))


def _among(z: Tensor) -> Tensor:
    return (_cosines(z, z) / T).masked_fill(torch.eye(len(z), dtype=torch.bool), -1e4)


def costs(n: int = ROWS) -> Iterator[Cost]:
    generator = torch.Generator().manual_seed(0)

    def rows(d: int, count: int = n) -> Tensor:
        return torch.randn(count, d, generator=generator)

    def views(d: int) -> tuple[Tensor, Tensor]:
        x = rows(d)
        return x, x + rows(d)

    def info_nce(q, k):
        return F.info_nce(q, k, temperature=T)

    tags = (torch.rand(n, 32, generator=generator) < 0.1).float()
    share = (tags @ tags.T).fill_diagonal_(0)
    levels = torch.stack([torch.arange(n) // size for size in (2, 16, 256)], 1)
    same = [(x[:, None] == x).float().fill_diagonal_(0) for x in levels.unbind(1)]
    yield Cost(
        "multi-label SupCon x 128, 32 labels", lambda z: F.contrast(z, targets=tags),
        lambda z: F.sup_con(z, levels[:, 1], temperature=T), lambda z: _mean(_among(z), share),
        (rows(128),), 1.5,
    )  # fmt: skip
    yield Cost(
        "hierarchical SupCon x 128, 3 levels", lambda z: F.contrast(z, labels=levels),
        lambda z: F.sup_con(z, levels[:, 1], temperature=T),
        lambda z: sum(_mean(_among(z), y) for y in same), (rows(128),), 1.15,
    )  # fmt: skip
    yield Cost(
        "SupCon x 128, sum under the logarithm",
        lambda z: F.contrast(z, labels=levels[:, 1], positives="sum"),
        lambda z: F.sup_con(z, levels[:, 1], temperature=T),
        lambda z: (
            _among(z).logsumexp(1) - _among(z).masked_fill(same[1] == 0, -torch.inf).logsumexp(1)
        ).mean(),
        (rows(128),), None,
    )  # fmt: skip
    bias = -torch.rand(n, generator=generator).log()
    weight, heat = (torch.rand(n, generator=generator) + 0.5 for _ in "12")
    pair = views(128)
    yield Cost(
        "logQ InfoNCE x 128", lambda q, k: F.contrast(q, k, column_bias=bias), info_nce,
        lambda q, k: _own(_cosines(q, k) / T + bias), pair, 1.15,
    )  # fmt: skip
    yield Cost(
        "InfoNCE x 128, weights of rows", lambda q, k: F.contrast(q, k, row_weight=weight),
        info_nce,
        lambda q, k: (
            weight * P.cross_entropy(_cosines(q, k) / T, torch.arange(n), reduction="none")
        ).mean(),
        pair, 1.15,
    )  # fmt: skip
    yield Cost(
        "InfoNCE x 128, a temperature per row", lambda q, k: F.contrast(q, k, temperature=heat),
        info_nce, lambda q, k: _own(_cosines(q, k) / heat[:, None]), pair, 1.15,
    )  # fmt: skip
    yield Cost(
        "InfoNCE x 128, label smoothing", lambda q, k: F.contrast(q, k, label_smoothing=0.1),
        info_nce,
        lambda q, k: P.cross_entropy(_cosines(q, k) / T, torch.arange(n), label_smoothing=0.1),
        pair, None,
    )  # fmt: skip
    listed = torch.arange(n).repeat(2), torch.randint(0, n, (2 * n,), generator=generator), None
    dense = torch.zeros(n, n).index_put(listed[:2], torch.ones(2 * n), accumulate=True)
    yield Cost(
        "InfoNCE x 128, a list of pairs", lambda q, k: F.contrast(q, k, pairs=listed), info_nce,
        lambda q, k: _mean(_cosines(q, k) / T, dense), pair, None,
    )  # fmt: skip
    wide, guide = views(512), views(384)

    def held(s: Tensor, judge: Tensor, margin: float) -> Tensor:
        limit = judge.diagonal()[:, None] + margin
        return _own(s.masked_fill(judge.detach() > limit.detach(), -torch.inf))

    yield Cost(
        "InfoNCE x 512, margin", lambda q, k: F.contrast(q, k, margin=0.1), info_nce,
        lambda q, k: held(_cosines(q, k) / T, _cosines(q, k), 0.1), wide, 1.5,
    )  # fmt: skip
    yield Cost(
        "GIST x 512 + 384", lambda q, k: F.contrast(q, k, guide=guide), info_nce,
        lambda q, k: held(_cosines(q, k) / T, _cosines(*guide), 1e-6), wide, 1 + 384 / 512,
    )  # fmt: skip
    widths = 768, 384, 192, 96
    yield Cost(
        "Matryoshka x 768, 4 widths",
        lambda q, k: F.matryoshka(q, k, widths=widths, temperature=T), info_nce,
        lambda q, k: sum(_own(_cosines(q[:, :w], k[:, :w]) / T) for w in widths), views(768), 1.5,
    )  # fmt: skip
    bags = rows(128, n).view(n // 4, 4, 128)
    owner = torch.arange(n // 4).repeat_interleave(4) == torch.arange(n // 4)[:, None]
    yield Cost(
        "MIL-NCE 1,024 x 4 x 128", lambda q, k: F.mil_nce(q, k, temperature=T),
        lambda q, k: F.info_nce(q, q, k.flatten(0, 1), temperature=T),
        lambda q, k: (
            (s := _cosines(q, k.flatten(0, 1)) / T).logsumexp(1)
            - s.masked_fill(~owner, -torch.inf).logsumexp(1)
        ).mean(),
        (rows(128, n // 4), bags), None,
    )  # fmt: skip


def measure(cost: Cost, budget: float) -> list[dict]:
    """A row per variant."""
    rows = [x.requires_grad_() for x in cost.rows]

    def step(function):
        def call():
            for x in rows:
                x.grad = None
            function(*rows).backward()

        return call

    variants = {"fastcl": cost.ours, "without": cost.without, "plain": cost.plain}
    samples = interleaved({name: step(f) for name, f in variants.items()}, "cpu", budget)
    found = []
    for name in variants:
        median, low, high = quantiles(samples[name])
        found.append({
            "case": cost.name, "variant": name, "median_ms": median * 1e3, "q20_ms": low * 1e3,
            "q80_ms": high * 1e3, "samples": len(samples[name]), "wanted": cost.wanted or "",
        })  # fmt: skip
    return found


def table(rows: list[dict[str, str]]) -> str:
    """Time, what the option costs, and plain PyTorch, below each other for every machine."""
    parts = []
    for machine in report.by_machine(rows):
        cells = {(row["case"], row["variant"]): row for row in machine}
        lines = []
        for case in dict.fromkeys(row["case"] for row in machine):
            ours, without, plain = (cells[case, x] for x in ("fastcl", "without", "plain"))
            of = [float(x["median_ms"]) / float(ours["median_ms"]) for x in (without, plain)]
            wanted = f"{float(ours['wanted']):.2f}" if ours["wanted"] else ""
            lines.append(
                [case, tables.milliseconds(ours), f"{1 / of[0]:.2f}", wanted, f"{of[1]:.1f}x"]
            )
        where = ", ".join(machine[0][key] for key in ("machine", "commit", "date"))
        head = f"{ROWS:,} rows, {machine[0]['threads']} threads: {where}."
        names = ["loss", "fastcl", "times without", "at most", "faster than plain"]
        parts.append(f"{tables.grid(names, lines)}\n\n{head}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.positives", description=__doc__)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing per variant")
    parser.add_argument("--cases", default="", help="only those with this in their name")
    arguments = parser.parse_args()
    where, path = report.circumstances("cpu"), report.RESULTS / "positives.csv"
    for cost in costs():
        if arguments.cases not in cost.name:
            continue
        new = [where | row for row in measure(cost, arguments.budget)]
        before = report.read(path) if path.exists() else []
        report.save(report.renew(new, before), path, COLUMNS)
        print(cost.name, *(f"{x['variant']} {x['median_ms']:.1f} ms" for x in new), flush=True)
    text = table(report.read(path))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
