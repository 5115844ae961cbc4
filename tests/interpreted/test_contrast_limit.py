"""Columns that are held to a limit, by themselves and by a guide, against the reference."""

import device
import pytest
import torch
from problems import (
    Budget,
    case,
    check_backward,
    check_forward,
    forward,
    ids,
    in_dtype,
    limited,
    problem,
    run_backward,
    wider,
)

from fastcl import reference
from fastcl.kernels import contrast_config as config

COSINES = torch.linspace(-1, 1, 21)
CASES = {
    "pairs": case(**ids(21, 35)),
    "several positives": case(**ids(21, 35, 4)),
    "decoupled": case(**ids(21, 35, 4), positives_in=False),
    "no positive": case(),
    "extra": case(**ids(21, 35, 9), cosines=COSINES),
    "constant": case(**ids(21, 35, 9), cosines=COSINES, frozen=True, pivot=COSINES - 0.01),
    "constant alone": case(frozen=True, scale=100.0),
    "constant, wide": case(n=17, m=20, d=320, cosines=COSINES[:17], frozen=True),
    "rank": case(**ids(21, 35), pivot=torch.linspace(-0.3, 0.6, 21)),
    "not unit": case(unit=False, **ids(21, 35), scale=40.0),
    "learned scale": case(scale=2.0, logit_scale=torch.tensor(7.0), **ids(21, 35)),
    "scale 200": case(scale=200.0, **ids(21, 35)),
    "one row": case(n=1, m=1, **ids(1, 1)),
    "one column": case(n=5, m=1, **ids(5, 1)),
    "exact tiles": case(n=16, m=32, d=16, **ids(16, 32)),
    "width 1": case(d=1, **ids(21, 35)),
    "width 100": case(d=100, **ids(21, 35)),
    "width 320": case(n=17, m=20, d=320, **ids(17, 20)),
}
GUIDES = {  # features and dtype; narrower and wider than the rows
    "itself": (None, torch.float32), "narrow": (7, torch.float32), "wide": (100, torch.bfloat16),
    "half": (24, torch.float16),
}  # fmt: skip
QUICK = {
    ("several positives", "itself", torch.float32), ("several positives", "wide", torch.bfloat16),
    ("constant", "itself", torch.bfloat16), ("constant", "narrow", torch.bfloat16),
    ("extra", "wide", torch.float32), ("no positive", "itself", torch.float32),
    ("decoupled", "narrow", torch.float32), ("learned scale", "half", torch.float16),
}  # fmt: skip


NARROW = torch.bfloat16, torch.float16


def cases():
    """Every case by itself and by a guide, the guides in turn; two of them in every dtype."""
    found = []
    for i, name in enumerate(CASES):
        for k, guide in enumerate(GUIDES):
            turn = k in (0, 1 + i % 3)
            for dtype in (torch.float32, *NARROW):
                quick = (name, guide, dtype) in QUICK
                if quick or turn and (dtype == torch.float32 or name in ("extra", "constant")):
                    marks = [] if quick else [pytest.mark.slow]
                    found.append(pytest.param(name, guide, dtype, marks=marks))
    return found


def given(name, guide, dtype=torch.float32):
    return limited(in_dtype(CASES[name], dtype), *GUIDES[guide])


@pytest.mark.parametrize("name,guide,dtype", cases())
def test_forward(kernels, name, guide, dtype):
    check_forward(kernels, given(name, guide, dtype))


@pytest.mark.parametrize("name,guide,dtype", cases())
def test_backward(kernels, name, guide, dtype):
    arguments = given(name, guide, dtype)
    check_backward(kernels, arguments)
    if not arguments["frozen"]:
        check_backward(kernels, arguments, need_k=False, positives=False)


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("name", ["several positives", "no positive", "not unit"])
def test_chunked_and_split(kernels, monkeypatch, name, guide):
    """By chunks of weights, through descriptors, and however the work is divided."""
    device.use_tiles(monkeypatch, chunked=True, bulk=True, launch_tiles=1, processors=40)
    check_forward(kernels, given(name, guide))
    check_backward(kernels, given(name, guide))


@pytest.mark.parametrize("guide", ["itself", "narrow"])
def test_what_is_left_out_matters(kernels, guide):
    """A negative control: other columns would have been left out by the other judge."""
    arguments = given("pairs", guide)
    other = dict(arguments, guide_q=None, guide_k=None, limit=arguments["limit"] + 0.3)
    rows, wrong = (forward(kernels, x)[0] for x in (arguments, other))
    assert (rows[0] - wrong[0]).abs().median() > 0.1


@pytest.mark.parametrize("guide", ["itself", "wide"])
def test_nothing_left(kernels, guide):
    """Without a column in the sum a row has no gradient; beside its own one its loss is zero."""
    for name in ("no positive", "extra", "constant alone"):
        arguments = dict(given(name, guide), limit=torch.full((21,), -2.0))
        grads = [torch.ones(21), None, None, None]
        rows, *_ = forward(kernels, arguments)
        gradients = run_backward(kernels, arguments, grads)
        assert (rows[0] == (0 if name == "extra" else -torch.inf)).all()
        assert all((x == 0).all() for x in gradients), name


@pytest.mark.parametrize("guide", ["itself", "wide"])
@pytest.mark.parametrize(
    "name", ["several positives", pytest.param("extra", marks=pytest.mark.slow)]
)
def test_kept_exponentials(kernels, monkeypatch, name, guide):
    """The mean whose exponentials become its gradient, several chunks of rows."""
    monkeypatch.setattr(config, "kept_rows", lambda q, k: 16)
    monkeypatch.setattr(config, "keeps", lambda *_: True)
    check_mean(kernels, given(name, guide, torch.bfloat16), True)


@pytest.mark.parametrize("guide", ["itself", "narrow"])
def test_mean_against_constants(kernels, guide):
    """Four launches with a limit; a guide takes the longer way."""
    p = problem(given("constant", guide, torch.bfloat16))
    assert kernels._is_frozen(p, (True, False, False, False)) == (guide == "itself")
    check_mean(kernels, given("constant", guide, torch.bfloat16), False)


def check_mean(kernels, arguments, trained):
    p = problem(arguments)
    needs = True, trained, trained and p.own is not None, trained
    ours, plain = kernels.contrast_mean(p, *needs), reference.contrast_mean(p, *needs)
    exact = reference.contrast_mean(wider(p), *needs)
    budget = Budget()
    for name, *three in zip(
        ("loss", "losses", "dq", "dk", "d_own", "slope"), ours, plain, exact, strict=True
    ):
        value = name.startswith("loss")
        eps = torch.finfo(torch.float32 if value else torch.bfloat16).eps
        budget.add(name, *(x.reshape(-1) for x in three), eps, floor=float(value))
    budget.check()


def test_numbers_that_are_none(kernels):
    """A guide that is not a number leaves nothing out of its rows and columns; a row is its own."""
    arguments = given("pairs", "narrow")
    guide_q, guide_k = arguments["guide_q"].clone(), arguments["guide_k"].clone()
    guide_q[2], guide_k[30], guide_q[7], guide_k[31] = torch.nan, torch.nan, 0, 0
    arguments |= {"guide_q": guide_q, "guide_k": guide_k}
    check_forward(kernels, arguments)
    check_backward(kernels, arguments)
