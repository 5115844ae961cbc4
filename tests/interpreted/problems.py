"""Problems of the raw operators by name, and how wrong a kernel may be."""

import torch

from fastcl import reference
from fastcl.contrast.problem import Problem

ROWS = "q", "k", "own"
LIMITS = "limit", "guide_q", "guide_k"


def unit_rows(n, d, seed, dtype=torch.float32):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1).to(dtype)


def beside(q, cosines, seed=9):
    """Unit rows at these cosines [n] from the unit rows q."""
    noise, cosines = unit_rows(*q.shape, seed), cosines[:, None]
    noise = torch.nn.functional.normalize(noise - (noise * q).sum(1, True) * q, dim=1)
    return cosines * q + (1 - cosines**2).sqrt() * noise


def case(
    n=21, m=35, d=24, dtype=torch.float32, scale=10.0, symmetric=False, seed=0, cosines=None,
    **changes,
):  # fmt: skip
    """A problem by name; cosines [n]: of own, from the rows. frozen: the columns are constant."""
    q = unit_rows(n, d, 2 * seed)
    if symmetric:
        changes["col_ids"] = changes.get("row_ids")
    k = q if symmetric else unit_rows(m, d, 2 * seed + 1)
    own = None if cosines is None else beside(q, cosines)
    arguments = dict(
        q=q, k=k, own=own, scale=scale, logit_scale=None, row_ids=None, col_ids=None,
        pivot=None, symmetric=symmetric, both=False, positives_in=True, unit=True, frozen=False,
    )  # fmt: skip
    return in_dtype({**arguments, **changes}, dtype)


def in_dtype(arguments, dtype):
    """The same with rows of this dtype."""
    rows = {x: arguments[x] for x in ROWS if arguments[x] is not None}
    return arguments | {name: x.to(dtype) for name, x in rows.items()}


def problem(arguments) -> Problem:
    """Of unit rows, or of any as they are."""
    x = arguments
    k, col_ids = ((), None) if x["symmetric"] else ((x["k"],), x["col_ids"])
    return Problem(
        (x["q"],), k, x["own"], x["logit_scale"], x["row_ids"], col_ids, None, None,
        *(x.get(name) for name in LIMITS), x["scale"], x["both"], x["positives_in"],
        x["unit"], False, False, False, True,
    )  # fmt: skip


def wider(p: Problem, dtype=torch.float64) -> Problem:
    """The same problem in another dtype."""

    def to(x):
        return None if x is None else x.to(dtype)

    return p._replace(
        q=tuple(map(to, p.q)),
        k=tuple(map(to, p.k)),
        own=to(p.own),
        logit_scale=to(p.logit_scale),
        **{name: to(getattr(p, name)) for name in LIMITS},
    )


def limited(arguments, guide=None, dtype=torch.float32):
    """The same with a limit for every row, and a guide of so many features that judges.

    Limits lie in the widest gap in the middle of a row's similarities, where no rounding decides;
    every fifth row keeps no column, and every fifth all of them.
    """
    n, m, more = len(arguments["q"]), len(arguments["k"]), {}
    judge = arguments["q"].double() @ arguments["k"].double().T
    if guide is not None:
        sides = [3 * unit_rows(size, guide, seed, dtype) for seed, size in ((5, n), (6, m))]
        judge = torch.nn.functional.normalize(sides[0].double(), dim=1)
        judge = judge @ torch.nn.functional.normalize(sides[1].double(), dim=1).T
        more = dict(zip(LIMITS[1:], sides, strict=True))
    ordered, rows = judge.sort(1).values[:, m // 4 : max(m // 4 + 2, 3 * m // 4)], torch.arange(n)
    limit = ordered[:, 0] - 0.1
    if m > 1:
        at = ordered.diff(dim=1).argmax(1, keepdim=True)
        limit = (ordered.gather(1, at) + ordered.gather(1, at + 1)).squeeze(1) / 2
    limit = torch.where(rows % 5 == 3, -2.0, torch.where(rows % 5 == 4, 2.0, limit))
    return {**arguments, "limit": limit.float(), **more}


def ids(n, m, groups=None):
    """Equal ids on the diagonal, or labels of so many groups."""
    rows, cols = torch.arange(n), torch.arange(m)
    return dict(row_ids=rows, col_ids=cols) if groups is None else dict(
        row_ids=rows * 7 % groups, col_ids=cols * 5 % groups
    )  # fmt: skip


def in_float64(arguments):
    return {
        name: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x
        for name, x in arguments.items()
    }


class Budget:
    """At most twice as wrong as plain PyTorch, and a little.

    Where logits reach many hundreds one row decides the largest error of either: several
    problems are drawn and the medians of their largest errors compared.
    """

    def __init__(self):
        self.errors = {}

    def add(self, name, ours, plain, exact, eps, floor=1.0):
        assert ours.shape == exact.shape, name
        finite = exact.isfinite()
        assert torch.equal(ours[~finite].double(), exact[~finite]), name
        if not finite.any():
            return
        little = 4 * eps * (floor + exact[finite].abs().max())
        pair = [(x[finite].double() - exact[finite]).abs().max() for x in (ours, plain)]
        self.errors.setdefault(name, []).append((pair[0] - little, pair[1]))

    def check(self):
        for name, pairs in self.errors.items():
            ours, plain = torch.stack([torch.stack(pair) for pair in pairs]).median(0).values
            assert ours <= 2 * plain, f"{name}: a little and {ours:.3g}, plain {plain:.3g}"


def pick(statistics, part):
    """One statistic [n] in float64; the second row is no result, only what rounding took."""
    loss, rest, positive, count = statistics.double()
    return {"loss": loss, "lse": loss + positive + rest, "positive": positive, "count": count}[part]


def forward(module, arguments):
    """Statistics, rank and, of constant columns, their weighted sum."""
    p = problem(arguments)
    return module.contrast_forward(p, arguments["pivot"], True, not arguments["frozen"])


def check_forward(kernels, *problems):
    """Statistics, rank and weighted sum; returns those of the last problem."""
    budget, eps = Budget(), torch.finfo(torch.float32).eps
    for arguments in problems:
        ours = forward(kernels, arguments)
        plain = forward(reference, arguments)
        exact = forward(reference, in_float64(arguments))
        for name, index in (("rows", 0), ("cols", 1)):
            for part in ("loss", "lse", "positive", "count"):
                three = (pick(x[index], part) for x in (ours, plain, exact))
                budget.add(f"{name} {part}", *three, eps)
        assert torch.equal(ours[2], exact[2]), "rank"
        narrow = torch.finfo(arguments["q"].dtype).eps
        budget.add("weighted", ours[3], plain[3], exact[3], narrow)
    budget.check()
    return ours


def run_backward(module, arguments, grads, need_q=True, need_k=True, plain=False):
    """Gradients after the module's own forward; plain: lse is one number, as PyTorch has it.

    Columns that are constant are gone by then.
    """
    p, frozen = problem(arguments), arguments["frozen"]
    rows, cols, _, weighted = module.contrast_forward(p, None, need_q, need_k and not frozen)
    if plain:
        rows[1], cols[1] = 0, 0
    if len(weighted) > 0:
        nothing = dict.fromkeys(("row_ids", "col_ids", *LIMITS))
        p = p._replace(k=(p.q[0].new_empty(0, p.width),), **nothing)
    return module.contrast_backward(
        p, rows, cols, weighted, *grads, need_q, need_k and not frozen, p.own is not None, need_q
    )


def check_backward(kernels, *problems, losses=True, positives=True, need_q=True, need_k=True):
    """Gradients from random upstream gradients, relative to the largest entry."""
    budget, random = Budget(), torch.Generator().manual_seed(7)
    for arguments in problems:
        n, m, both = len(arguments["q"]), len(arguments["k"]), arguments["both"]
        grads = [
            torch.rand(size, generator=random) + 0.1 if wanted else None
            for size, wanted in (
                (n, losses), (n, positives), (m, both and losses), (m, both and positives)
            )
        ]  # fmt: skip
        wide = [None if g is None else g.double() for g in grads]
        ours = run_backward(kernels, arguments, grads, need_q, need_k)
        plain = run_backward(reference, arguments, grads, need_q, need_k, plain=True)
        exact = run_backward(reference, in_float64(arguments), wide, need_q, need_k)
        eps = torch.finfo(arguments["q"].dtype).eps
        for name, *three in zip(("dq", "dk", "d_own", "slope"), ours, plain, exact, strict=True):
            budget.add(name, *three, eps, floor=0.0)
    budget.check()
