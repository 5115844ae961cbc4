"""The mean loss with its gradients taken in the forward, against the reference."""

import pytest
import torch
from problems import Budget, case, ids, in_float64, pick

from fastcl import reference
from fastcl.kernels import info_nce_config as config

N, M, D = 37, 70, 24
CASES = {
    "pairs": case(n=N, m=M, d=D, **ids(N, M)),
    "several positives": case(n=N, m=M, d=D, **ids(N, M, 5)),
    "no positive": case(n=N, m=M, d=D),
    "extra": case(n=N, m=M, d=D, **ids(N, M), extra=torch.linspace(-1, 1, N)),
    "scale 60": case(n=N, m=M, d=D, scale=60.0, **ids(N, M)),
    "one row": case(n=1, m=40, d=D, **ids(1, 40)),
    "few columns": case(n=N, m=5, d=D, **ids(N, 5)),
    "width 300": case(n=17, m=40, d=300, **ids(17, 40)),
}
QUICK = "pairs", "several positives", "scale 60"


def names():
    for name in CASES:
        yield pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.fixture
def mean(kernels, monkeypatch):
    """The launcher, with several chunks of rows and descriptors off."""
    from fastcl.kernels import info_nce_mean

    monkeypatch.setattr(config, "kept_rows", lambda q, k: 16)
    monkeypatch.setattr(info_nce_mean, "serves", lambda p, unit: True)
    return info_nce_mean


def run(module, arguments, need_q=True, need_k=True, normalize=False):
    names = "q", "k", "scale", "logit_scale", "row_ids", "col_ids", "extra"
    return module.info_nce_mean(
        *(arguments[name] for name in names), True, normalize, need_q, need_k
    )


def exact_gradients(arguments):
    """Statistics and gradients of the mean, by the reference."""
    rows, cols, *_ = reference.info_nce_forward(**arguments)
    grad = torch.full_like(rows[0], 1 / len(rows[0]))
    names = "q", "k", "scale", "logit_scale", "row_ids", "col_ids"
    gradients = reference.info_nce_backward(
        grad, None, None, None, *(arguments[name] for name in names), rows, cols,
        False, True, arguments["extra"] is not None, True, True, True,
    )  # fmt: skip
    return rows, *gradients


def check(ours, arguments):
    budget, narrow = Budget(), torch.finfo(torch.bfloat16).eps
    plain, exact = exact_gradients(arguments), exact_gradients(in_float64(arguments))
    for part in ("loss", "lse", "positive", "count"):
        three = (pick(x, part) for x in (ours[1], plain[0], exact[0]))
        budget.add(part, *three, torch.finfo(torch.float32).eps)
    for name, got, *others in zip(("dq", "dk"), ours[2:4], plain[1:], exact[1:], strict=True):
        budget.add(name, got, *others, narrow, floor=0.0)
    budget.check()
    torch.testing.assert_close(ours[0], ours[1][0].mean())


@pytest.mark.parametrize("name", names())
def test_table(mean, name):
    arguments = CASES[name] | {side: CASES[name][side].bfloat16() for side in ("q", "k")}
    check(run(mean, arguments), arguments)
