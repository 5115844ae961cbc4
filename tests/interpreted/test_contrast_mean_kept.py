"""The mean loss with its gradients taken in the forward, against the reference."""

import pytest
import torch
from problems import Budget, case, ids, in_dtype, in_float64, pick, problem

from fastcl import reference
from fastcl.kernels import contrast_config as config

N, M, D = 37, 70, 24
CASES = {
    "pairs": case(n=N, m=M, d=D, **ids(N, M)),
    "several positives": case(n=N, m=M, d=D, **ids(N, M, 5)),
    "no positive": case(n=N, m=M, d=D),
    "extra": case(n=N, m=M, d=D, **ids(N, M), cosines=torch.linspace(-1, 1, N)),
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
    """Loss, statistics and gradients of the operator, with several chunks of rows and descriptors
    off; it must keep exponentials."""
    monkeypatch.setattr(config, "kept_rows", lambda q, k: 16)
    monkeypatch.setattr(config, "keeps", lambda *_: True)
    unit_gradients, kept = kernels.unit_gradients, []

    def recorded(*arguments):
        kept.append(unit_gradients(*arguments))
        return kept[-1]

    def run(p, need_q=True, need_k=True):
        kept.clear()
        own = p.own is not None
        loss, losses, *gradients = kernels.contrast_mean(p, need_q, need_k, own, need_q)
        ((rows, *_),) = kept
        assert torch.equal(losses, rows[0])
        return loss, rows, *gradients

    monkeypatch.setattr(kernels, "unit_gradients", recorded)
    return run


def exact_gradients(arguments):
    """Statistics and gradients of the mean, by the reference."""
    p = problem(arguments)
    rows, cols, _, weighted = reference.contrast_forward(p, None, True, True)
    grad = torch.full_like(rows[0], 1 / len(rows[0]))
    return rows, *reference.contrast_backward(
        p, rows, cols, weighted, grad, None, None, None, True, True, p.own is not None, True
    )


def check(ours, arguments):
    budget, narrow = Budget(), torch.finfo(torch.bfloat16).eps
    plain, exact = exact_gradients(arguments), exact_gradients(in_float64(arguments))
    for part in ("loss", "lse", "positive", "count"):
        three = (pick(x, part) for x in (ours[1], plain[0], exact[0]))
        budget.add(part, *three, torch.finfo(torch.float32).eps)
    names = "dq", "dk", "d_own", "slope"
    for name, got, *others in zip(names, ours[2:], plain[1:], exact[1:], strict=True):
        budget.add(name, got, *others, narrow, floor=0.0)
    budget.check()
    torch.testing.assert_close(ours[0], ours[1][0].mean())


@pytest.mark.parametrize("name", names())
def test_table(mean, name):
    arguments = in_dtype(CASES[name], torch.bfloat16)
    check(mean(problem(arguments)), arguments)


@pytest.mark.slow
@pytest.mark.parametrize("need_q,need_k", [(True, False), (False, True)])
def test_only_what_is_needed(mean, need_q, need_k):
    p = problem(CASES["pairs"])
    whole, some = mean(p), mean(p, need_q, need_k)
    assert torch.equal(some[1], whole[1])
    for got, wanted, needed in zip(some[2:4], whole[2:4], (need_q, need_k), strict=True):
        assert torch.equal(got, wanted) if needed else got.shape == (0, D)


def test_nothing_is_needed(mean, kernels):
    p = problem(CASES["pairs"])
    loss, losses, *nothing = kernels.contrast_mean(p, *[False] * 4)
    whole = mean(p)
    torch.testing.assert_close((loss, losses), (whole[0], whole[1][0]))
    assert [x.shape for x in nothing] == [(0, D)] * 3 + [(0,)]


def test_converged(mean):
    """Positives at cosine 0.9: their weight is a difference of numbers near one, taken before
    rounding; a row has no larger error than two roundings of its weights make.
    """
    q = CASES["pairs"]["q"]
    noise = CASES["pairs"]["k"][:N]
    noise = torch.nn.functional.normalize(noise - (noise * q).sum(1, True) * q, dim=1)
    k = (0.9 * q + (1 - 0.9**2) ** 0.5 * noise).bfloat16()
    arguments = CASES["pairs"] | dict(q=q.bfloat16(), k=k, col_ids=torch.arange(N), scale=60.0)
    ours, exact = mean(problem(arguments)), exact_gradients(in_float64(arguments))
    for got, wanted in zip(ours[2:4], exact[1:3], strict=True):
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
    ours = mean(problem(arguments))
    assert pick(ours[1], "lse").max() < -0.95 * scale
    check(ours, arguments)


def test_rows_that_are_not_unit(mean):
    arguments = CASES["pairs"] | {s: 3 * CASES["pairs"][s].bfloat16() for s in ("q", "k")}
    p = problem(arguments)._replace(normalize_q=True, normalize_k=True)
    loss, _, dq, dk, _, _ = mean(p)
    q, k = (arguments[s].double().requires_grad_() for s in ("q", "k"))
    s = 10 * torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(k).T
    exact = torch.nn.functional.cross_entropy(s, torch.arange(N))
    exact.backward()
    assert (loss - exact).abs() < 0.02
    for got, wanted in ((dq, q.grad), (dk, k.grad)):
        assert (got - wanted).abs().max() < 4 * 2**-7 * wanted.abs().max()


def test_other_problems_form_logits_anew(kernels, monkeypatch):
    """What a row without a positive counts, or a positive outside the denominator, is decided
    after the exponentials; without gradients there is nothing to keep."""
    monkeypatch.setattr(config, "keeps", lambda *_: True)
    p = problem(CASES["several positives"])
    assert kernels._keeps(kernels.prepared(p), True, True)
    assert not kernels._keeps(kernels.prepared(p), False, False)
    for changes in ({"paired": False}, {"positives_in": False}, {"both": True}, {"k": ()}):
        assert not kernels._keeps(kernels.prepared(p._replace(**changes)), True, True), changes


def test_it_serves_where_a_product_less_pays(monkeypatch):
    monkeypatch.setattr(config, "supported", lambda q: True)
    q, narrow = (torch.empty(4096, d, dtype=torch.bfloat16, device="meta") for d in (512, 128))
    scale = torch.empty((), device="meta")
    for x, changes, wanted in (
        (q, {}, True), (narrow, {}, False), (q.half(), {}, False), (q, {"unit": False}, False),
        (q, {"scale": 65.0}, False), (q, {"logit_scale": scale}, False),
        (narrow, {"guided": True}, True),
    ):  # fmt: skip
        options = {"scale": 10.0, "logit_scale": None, "unit": True, "need_k": True}
        options |= {"guided": False, **changes}
        assert config.keeps(x, x, **options) == wanted, changes
