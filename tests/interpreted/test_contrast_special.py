"""What the table does not show: convergence, repairs, splits, bad numbers."""

import device
import pytest
import torch
from problems import (
    case,
    check_backward,
    check_forward,
    forward,
    ids,
    in_float64,
    pick,
    run_backward,
    unit_rows,
)
from test_contrast import CASES

from fastcl import reference
from fastcl.kernels import contrast_config as config


@pytest.mark.slow
@pytest.mark.parametrize(
    "losses,positives,chunked", [(True, False, False), (False, True, True), (False, False, False)]
)
def test_absent_gradients(kernels, monkeypatch, losses, positives, chunked):
    device.use_tiles(monkeypatch, chunked=chunked)
    for name in ("symmetric", "one direction"):
        check_backward(kernels, CASES[name], losses=losses, positives=positives)
    options = {"losses": losses, "positives": positives}
    check_backward(kernels, CASES["both"], **options, need_k=False)
    check_backward(kernels, CASES["both"], **options, need_q=False)


def converged(symmetric, scale, cosine, n=17, d=24):
    """Pairs at one cosine."""
    q = unit_rows(n, d, 3)
    noise = unit_rows(n, d, 4)
    noise = torch.nn.functional.normalize(noise - (noise * q).sum(1, True) * q, dim=1)
    k = (cosine * q + (1 - cosine**2) ** 0.5 * noise).bfloat16()
    q = q.bfloat16()
    if not symmetric:
        return case(scale=scale, both=True, **ids(n, n)) | dict(q=q, k=k)
    z, pairs = torch.cat([q, k]), torch.arange(2 * n) % n
    return case(scale=scale, symmetric=True) | dict(q=z, k=z, row_ids=pairs, col_ids=pairs)


def exact_pairs(arguments):
    """Losses, and their sum's gradient to the cosines: one positive a row, no 1 - p, float64."""
    q, k, scale = arguments["q"].double(), arguments["k"].double(), arguments["scale"]
    match = arguments["row_ids"][:, None] == arguments["col_ids"][None, :]
    self_ = torch.eye(len(q), len(k)).bool() & arguments["symmetric"]
    s = scale * q @ k.T
    positive = s[match & ~self_]
    g, losses = torch.zeros_like(s), []
    for direction in (False, True)[: 1 + arguments["both"]]:
        t, weights = (s.T, g.T) if direction else (s, g)
        negatives = t.masked_fill(match | self_, -torch.inf)
        loss = torch.log1p((negatives.logsumexp(1) - positive).exp())
        p = (negatives - (positive + loss)[:, None]).exp()
        weights += p - (match & ~self_) * p.sum(1)[:, None]
        losses.append(loss)
    return losses, scale * (g + g.T if arguments["symmetric"] else g)


@pytest.mark.parametrize("chunked", [False, True], ids=["own", "chunked"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "scale,cosine", [(100.0, 0.9), pytest.param(200.0, 0.6, marks=pytest.mark.slow)]
)
def test_converged(kernels, monkeypatch, scale, cosine, symmetric, chunked):
    """A loss far below the rounding of its logits, and its gradient, stay exact."""
    device.use_tiles(monkeypatch, chunked=chunked)
    arguments = converged(symmetric, scale, cosine)
    rows, cols, *_ = forward(kernels, arguments)
    losses, weights = exact_pairs(arguments)
    assert losses[0].min() < 1e-9
    for ours, exact in zip((rows, cols), losses, strict=False):
        torch.testing.assert_close(ours[0].double(), exact, rtol=2e-4, atol=1e-37)
    ones = torch.ones(len(arguments["q"]))
    grads = ones, None, None if symmetric else ones, None
    gradients = run_backward(kernels, arguments, grads)
    q, k, rounded = arguments["q"].double(), arguments["k"].double(), weights.bfloat16().double()
    products = ((weights @ k, rounded @ k), (weights.T @ q, rounded.T @ q))
    for got, (exact, nearest) in zip(gradients, products[: 2 - symmetric], strict=False):
        size = exact.norm(dim=1)
        kept = size > 1e-30  # weights below leave the range of float32
        assert kept.float().mean() > 0.9
        # Row by row, so that none hides behind another: what rounding the weights must cost.
        error, least = (
            ((x - exact).norm(dim=1) / size)[kept].square().mean().sqrt() for x in (got, nearest)
        )
        assert error <= 1.05 * least + 1e-4
        assert scale == 200 or (got - exact).norm() <= 2e-3 * exact.norm()


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("tensor", [True, False])
def test_more_digits_than_float32(kernels, unit, tensor):
    """lse, and the scale before it: here float32 has every cosine exactly."""
    # Above the fixed shift a power of up to 2^64 is rounded, under a running maximum nothing is.
    bound = 1.4e-6 if unit else 2e-7
    signs = torch.randint(0, 2, (2, 35, 16), generator=torch.Generator().manual_seed(0))
    q, k = (signs - 0.5) / 2
    scale = 1 / 0.007
    logit_scale = torch.tensor(scale) if tensor else None
    arguments = case(unit=unit, both=True, **ids(35, 35, 9)) | dict(q=q, k=k)
    arguments |= dict(scale=1.0 if tensor else scale, logit_scale=logit_scale)
    ours = forward(kernels, arguments)
    exact = forward(reference, in_float64(arguments))
    for got, wanted in zip(ours[:2], exact[:2], strict=True):
        lse = pick(wanted, "lse")
        assert (pick(got, "lse") - lse).abs().max() < bound
        assert (lse.float() - lse).abs().max() > 1.2 * bound  # one rounding would show


@pytest.mark.parametrize("both", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_underflow_is_repaired(kernels, both):
    """Rows and columns whose every cosine is -1 lose their sum to the fixed shift at scale 100."""
    q, k = unit_rows(21, 24, 0), unit_rows(35, 24, 1)
    q[5] = q[12]
    k[:] = -q[5] + 1e-3 * k
    k = torch.nn.functional.normalize(k, dim=1)
    arguments = case(scale=100.0, both=both, **ids(21, 35)) | dict(q=q, k=k)
    shift = 100.0 - 74.0
    lse = pick(check_forward(kernels, arguments)[0], "lse")
    assert lse.min() - shift < -100  # e^-100 is no float32 number
    check_backward(kernels, arguments)


def test_triangle_is_repaired(kernels):
    z = unit_rows(40, 24, 0)
    z[7] = -z[8]
    z[9:] = z[8]
    arguments = case(scale=100.0, symmetric=True) | dict(q=z, k=z)
    check_forward(kernels, arguments)
    check_backward(kernels, arguments)


@pytest.mark.slow
def test_small_float16_gradient(kernels):
    """Upstream gradients of 1e-6 leave float16 weights below its range, but for the lift."""
    arguments = CASES["both"] | dict(q=CASES["both"]["q"].half(), k=CASES["both"]["k"].half())
    ours = [
        run_backward(
            kernels, arguments, (torch.full((21,), g), None, torch.full((35,), g), None)
        )
        for g in (1.0, 1e-6)
    ]  # fmt: skip
    for large, small in zip(*ours, strict=True):
        torch.testing.assert_close(small * 1e6, large, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", ["q", pytest.param("k", marks=pytest.mark.slow)])
@pytest.mark.parametrize("value", [torch.nan, pytest.param(torch.inf, marks=pytest.mark.slow)])
def test_not_finite(kernels, side, value):
    """A loss that saw NaN or inf is NaN, or infinite; never a wrong finite number."""
    arguments = case(**ids(21, 35), both=True)
    arguments[side] = arguments[side].clone()
    arguments[side][3] = value
    rows, cols, *_ = forward(kernels, arguments)
    touched = rows[0] if side == "k" else cols[0]
    assert not touched.isfinite().any()
    other = cols[0] if side == "k" else rows[0]
    assert not other[3].isfinite()
    assert other[4:].isfinite().all()


def test_descriptors(kernels, monkeypatch):
    """The tiles through tensor descriptors, zero beyond the border."""
    device.use_tiles(monkeypatch, bulk=True)
    check_forward(kernels, CASES["frozen"])
    check_backward(kernels, CASES["both"])


def test_same_bits_twice(kernels):
    first, second = (forward(kernels, CASES["symmetric"]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float64_goes_to_the_reference(kernels):
    arguments = in_float64(CASES["both"])
    ours = forward(kernels, arguments)
    exact = forward(reference, arguments)
    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))


@pytest.mark.parametrize("rows,columns", [(16, 32), pytest.param(32, 16, marks=pytest.mark.slow)])
def test_triangle_of_oblong_tiles(kernels, monkeypatch, rows, columns):
    """Every pair of rows is summed once, also where a tile on the diagonal is no square."""
    plan = config.plan

    def oblong(q, k):
        tile = config.Tile(rows, columns, 32, 1, 1)
        return plan(q, k)._replace(sums=tile)

    monkeypatch.setattr(config, "plan", oblong)
    check_forward(kernels, case(n=75, symmetric=True, **ids(75, 75, 38)))


@pytest.mark.slow
@pytest.mark.parametrize("launch_tiles,processors", [(1, 1), (3, 40)])
def test_splits(kernels, monkeypatch, launch_tiles, processors):
    """However the work is divided, the numbers are the same."""
    device.use_tiles(monkeypatch, launch_tiles=launch_tiles, processors=processors)
    for name in ("symmetric", "several positives", "frozen ids"):
        check_forward(kernels, CASES[name])
        check_backward(kernels, CASES[name])


@pytest.mark.slow
def test_realistic(kernels, monkeypatch):
    """The tiles of sm_90 as they are."""

    def plan(q, k):
        return config.Plan(*config.tiles(9, q.shape[1], 2, "ieee"), False, 132, "ieee")

    monkeypatch.setattr(config, "plan", plan)
    monkeypatch.setattr(config, "chunk_size", lambda itemsize: 128)
    for d in (200, 384):
        arguments = case(n=140, m=130, d=d, dtype=torch.bfloat16, both=True, **ids(140, 130))
        check_forward(kernels, arguments)
        check_backward(kernels, arguments)
