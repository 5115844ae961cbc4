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
    monkeypatch.setattr(config, "keeps", lambda *_: True)
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


@pytest.mark.slow
@pytest.mark.parametrize("need_q,need_k", [(True, False), (False, True), (False, False)])
def test_only_what_is_needed(mean, need_q, need_k):
    whole, some = run(mean, CASES["pairs"]), run(mean, CASES["pairs"], need_q, need_k)
    assert torch.equal(some[1], whole[1])
    for got, wanted, needed in zip(some[2:4], whole[2:4], (need_q, need_k), strict=True):
        assert torch.equal(got, wanted) if needed else got.shape == (0, D)


def test_converged(mean):
    """Positives at cosine 0.9: their weight is a difference of numbers near one, taken before
    rounding; a row has no larger error than two roundings of its weights make.
    """
    q = CASES["pairs"]["q"]
    noise = CASES["pairs"]["k"][:N]
    noise = torch.nn.functional.normalize(noise - (noise * q).sum(1, True) * q, dim=1)
    k = (0.9 * q + (1 - 0.9**2) ** 0.5 * noise).bfloat16()
    arguments = CASES["pairs"] | dict(q=q.bfloat16(), k=k, col_ids=torch.arange(N), scale=60.0)
    ours, exact = run(mean, arguments), exact_gradients(in_float64(arguments))
    for got, wanted in zip(ours[2:4], exact[1:], strict=True):
        size = wanted.norm(dim=1)
        clear = size > 1e-11  # below, float64 has no digits of p - 1 left either
        assert clear.float().mean() > 0.3
        error = (got - wanted).norm(dim=1)[clear] / size[clear]
        assert error.max() < torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("scale", [45.0, config.KEPT_SCALE])
def test_every_logit_as_low_as_can_be(mean, scale):
    """Rows opposite to all columns: the least sums, the largest factors."""
    q, k = (x + 0.02 * CASES["pairs"][s] for s, x in (("q", D**-0.5), ("k", -(D**-0.5))))
    q, k = (torch.nn.functional.normalize(x, dim=1).bfloat16() for x in (q, k[:3]))
    arguments = case(n=N, m=3, d=D, scale=scale, **ids(N, 3)) | {"q": q, "k": k}
    ours = run(mean, arguments)
    assert pick(ours[1], "lse").max() < -0.95 * scale
    check(ours, arguments)


def test_rows_that_are_not_unit(mean):
    arguments = CASES["pairs"] | {s: 3 * CASES["pairs"][s].bfloat16() for s in ("q", "k")}
    loss, _, dq, dk, _ = run(mean, arguments, normalize=True)
    q, k = (arguments[s].double().requires_grad_() for s in ("q", "k"))
    s = 10 * torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(k).T
    exact = torch.nn.functional.cross_entropy(s, torch.arange(N))
    exact.backward()
    assert (loss - exact).abs() < 0.02
    for got, wanted in ((dq, q.grad), (dk, k.grad)):
        assert (got - wanted).abs().max() < 4 * 2**-7 * wanted.abs().max()


def test_it_serves_where_a_product_less_pays(monkeypatch):
    monkeypatch.setattr(config, "supported", lambda q: True)
    q, narrow = (torch.empty(4096, d, dtype=torch.bfloat16, device="meta") for d in (512, 128))
    scale = torch.empty((), device="meta")
    for x, changes, wanted in (
        (q, {}, True), (narrow, {}, False), (q.half(), {}, False), (q, {"unit": False}, False),
        (q, {"scale": 65.0}, False), (q, {"logit_scale": scale}, False),
    ):  # fmt: skip
        options = {"scale": 10.0, "logit_scale": None, "unit": True, "need_k": True} | changes
        assert config.keeps(x, x, **options) == wanted, changes
