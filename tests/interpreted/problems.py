"""Arguments of the raw operators by name, and how wrong a kernel may be."""

import torch

from fastcl import reference

NAMES = "q", "k", "scale", "logit_scale", "row_ids", "col_ids"


def unit_rows(n, d, seed, dtype=torch.float32):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1).to(dtype)


def case(
    n=21, m=35, d=24, dtype=torch.float32, scale=10.0, symmetric=False, seed=0, **changes
):  # fmt: skip
    """Arguments of the forward by name."""
    q = unit_rows(n, d, 2 * seed, dtype)
    if symmetric:
        changes["col_ids"] = changes.get("row_ids")
    k = q if symmetric else unit_rows(m, d, 2 * seed + 1, dtype)
    arguments = dict(
        q=q, k=k, scale=scale, logit_scale=None, row_ids=None, col_ids=None, extra=None,
        pivot=None, symmetric=symmetric, both=False, positives_in=True, unit=True, frozen=False,
    )  # fmt: skip
    return {**arguments, **changes}


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


def check_forward(kernels, *problems):
    """Statistics, rank and weighted sum; returns those of the last problem."""
    budget, eps = Budget(), torch.finfo(torch.float32).eps
    for arguments in problems:
        ours = kernels.info_nce_forward(**arguments)
        plain = reference.info_nce_forward(**arguments)
        exact = reference.info_nce_forward(**in_float64(arguments))
        for name, index in (("rows", 0), ("cols", 1)):
            for part in ("loss", "lse", "positive", "count"):
                three = (pick(x[index], part) for x in (ours, plain, exact))
                budget.add(f"{name} {part}", *three, eps)
        assert torch.equal(ours[2], exact[2]), "rank"
        if arguments["frozen"]:
            narrow = torch.finfo(arguments["q"].dtype).eps
            budget.add("weighted", ours[3], plain[3], exact[3], narrow)
    budget.check()
    return ours


def run_backward(module, arguments, grads, need_q=True, need_k=True, plain=False):
    """Gradients after the module's own forward; plain: lse is one number, as PyTorch has it."""
    rows, cols, *_ = module.info_nce_forward(**arguments)
    if plain:
        rows[1], cols[1] = 0, 0
    return module.info_nce_backward(
        *grads, *(arguments[name] for name in NAMES), rows, cols,
        arguments["symmetric"], arguments["positives_in"], arguments["extra"] is not None,
        arguments["unit"], need_q, need_k,
    )  # fmt: skip


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
        for name, *three in zip(("dq", "dk"), ours, plain, exact, strict=True):
            budget.add(name, *three, eps, floor=0.0)
    budget.check()
