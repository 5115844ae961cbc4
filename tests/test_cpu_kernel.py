"""What is special to the compiled CPU kernel of the contrast: tile edges, shifts, schedule, memory.

Float64 goes against the reference as it is; float32 may be twice as wrong as the reference in
float32, plus 4 eps, both measured against the reference in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from contrasts import call, fields, results
from processors import built, running

from fastcl import reference
from fastcl._library import ops

pytestmark = [built, pytest.mark.instruction_sets]

# A tile is up to 240 or 256 rows; a vector has 4, 8 or 16 lanes.
SIZES = [(1, 1), (1, 7), (17, 3), (127, 129), (128, 128), (256, 257), (300, 129), (40, 1100)]
NAMES = ("rows", "cols", "rank", "weighted", "dq", "dk", "d_own", "slope", "finished")


@pytest.fixture(autouse=True)
def one_thread():
    """More threads give the same bits, which has a test of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n, m, d=24, *, symmetric=False, ids="pairs", own=False, unit=True, seed=0):
    """Float64 arguments up to unit; every dtype is made from these by `run`."""
    make = torch.Generator().manual_seed(seed)
    q = torch.randn(n, d, generator=make, dtype=torch.float64)
    k = q if symmetric else torch.randn(m, d, generator=make, dtype=torch.float64)
    if unit:
        q, k = F.normalize(q), F.normalize(k)
    m = n if symmetric else m
    row_ids = col_ids = None
    if ids == "pairs":
        row_ids, col_ids = torch.arange(n) % max(n // 2, 1), torch.arange(m) % max(n // 2, 1)
    elif ids == "classes":  # too far apart for 32 bits
        row_ids = torch.randint(-2, 3, (n,), generator=make) * 2**61
        col_ids = row_ids if symmetric else torch.randint(-2, 3, (m,), generator=make) * 2**61
    similarity = torch.randn(n, generator=make, dtype=torch.float64) * 0.2
    positive = F.normalize(torch.randn(n, d, generator=make, dtype=torch.float64))
    return {
        "q": q, "k": k, "row_ids": row_ids, "col_ids": col_ids, "symmetric": symmetric,
        "own": positive if own else None, "pivot": similarity + 0.1, "unit": unit,
    }  # fmt: skip


def run(module, p, dtype, *, scale=10.0, both=False, positives_in=True, grads=True):
    """All results of the forward and the backward, by a module that has both; where the forward
    can finish the gradient of the rows, that one too."""
    to = {key: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x
          for key, x in p.items()}  # fmt: skip
    x = fields(
        to["q"], () if p["symmetric"] else to["k"], scale=scale, own=to["own"],
        ids=(p["row_ids"], p["col_ids"]), both=both, positives_in=positives_in, unit=p["unit"],
    )  # fmt: skip
    out = call(module, "contrast_forward", x, to["pivot"], True, False)
    if not grads:
        return out
    make = torch.Generator().manual_seed(1)
    n, m = x.rows, x.columns
    g = [torch.randn(size, generator=make, dtype=torch.float64) / n for size in (n, n, m, m)]
    g = [x.to(out[0].dtype) for x in g[: 4 if both else 2]] + [None] * (0 if both else 2)
    rows, cols, _, weighted = out

    def backward(*arguments):
        return call(module, "contrast_backward", *arguments)

    needs = True, not p["symmetric"], x.own is not None, True
    found = backward(x, rows, cols, weighted[:0], *g, *needs)
    finished = weighted
    if x.finishes(True, False):
        bare = x._replace(k=[x.k[0][:0]], row_ids=None, col_ids=None)  # columns are not read
        finished = backward(bare, rows, cols, weighted, *g, True, False, False, False)[0]
    return *out, *found, finished


def assert_budget(*problems, **options):
    """Each result at most twice as wrong as the reference in float32, plus 4 eps.

    Losses and gradients are compared as whole results: one element of plain may be lucky. Where
    logits reach hundreds, one row decides the largest error of either, so several problems are
    drawn and the medians of the largest errors compared.
    """
    errors = {}
    for p in problems:
        exact = run(reference, rounded(p), torch.float64, **options)
        plain = run(reference, p, torch.float32, **options)
        ours = run(ops, p, torch.float32, **options)
        for name, x, y, z in zip(NAMES, ours, plain, exact, strict=False):
            if name in ("rank", "slope") or z.numel() == 0:  # one number of plain may be lucky
                continue
            assert x.dtype == torch.float32
            if name in ("rows", "cols"):
                x, y, z = (results(part) for part in (x, y, z))
            size = 4 * torch.finfo(torch.float32).eps * (1 + z.abs())
            excess = ((x - z).abs() - size).clamp(min=0).max()
            errors.setdefault(name, []).append((excess, (y - z).abs().max()))
    for name, pairs in errors.items():
        ours, plain = torch.tensor(pairs).median(0).values
        assert ours <= 2 * plain, f"{name}: off by {ours:.1e} and 4 eps, plain by {plain:.1e}"


def rounded(p):
    """The problem as float32 holds it."""
    return {key: x.float().double() if torch.is_tensor(x) and x.is_floating_point() else x
            for key, x in p.items()}  # fmt: skip


@pytest.mark.parametrize("positives_in", [True, False])
@pytest.mark.parametrize("ids", [None, "pairs", "classes"])
@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
@pytest.mark.parametrize("n, m", SIZES)
def test_float64_equals_the_reference(n, m, form, ids, positives_in):
    """Every size around a tile, every combination of flags, with a fixed and a running shift."""
    for unit, scale in ((True, 7.0), (False, 70.0)):
        p = problem(n, m, symmetric=form == "symmetric", ids=ids, own=form == "own", unit=unit)
        options = {"both": form == "both", "positives_in": positives_in, "scale": scale}
        for name, x, y in zip(
            NAMES, run(ops, p, torch.float64, **options),
            run(reference, p, torch.float64, **options), strict=True,
        ):  # fmt: skip
            if name in NAMES[4:] and not torch.isfinite(y).all():
                continue  # an empty denominator has no gradient to compare
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10, equal_nan=True, msg=name)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0, 200.0])
@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
@pytest.mark.parametrize("unit", [True, False])
def test_float32_stays_in_the_budget(form, scale, unit):
    """Up to temperature 0.005, where the shift underflows and the running maximum takes over."""
    problems = [
        problem(
            300, 290, 64, symmetric=form == "symmetric", own=form == "own", unit=unit,
            ids="classes" if scale == 1 else "pairs", seed=seed,
        )
        for seed in range(1 if unit else 7)
    ]  # fmt: skip
    assert_budget(*problems, both=form == "both", scale=scale if unit else scale / 16)


@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
def test_decoupled_rows_of_very_different_lse(form):
    """With positives left out, lse at temperature 0.005 spread further than one shift spans."""
    p = problem(260, 270, 3, symmetric=form == "symmetric", own=form == "own")
    p["q"][0] = -p["k"].mean(0) if form != "symmetric" else p["q"][0]
    assert_budget(p, both=form == "both", positives_in=False, scale=200.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
def test_half_precision_rows_are_widened_exactly(form, dtype):
    """As float32 rows of the same values; 600 columns are two slices."""
    p = problem(150, 140, 600, symmetric=form == "symmetric", own=form == "own")
    p["q"][3, :4] = torch.tensor([0.0, -0.0, 1e-6, -3e-7], dtype=torch.float64)  # subnormal
    p = {key: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x
         for key, x in p.items()}  # fmt: skip
    with running(products="widened"):
        half = run(ops, p, dtype, both=form == "both", grads=False)
    single = run(ops, p, torch.float32, both=form == "both", grads=False)
    for name, x, y in zip(NAMES, half, single, strict=False):
        torch.testing.assert_close(x, y, rtol=2e-6, atol=2e-6, msg=name)


def test_every_cosine_minus_one():
    """exp of every logit underflows below the shift for unit rows."""
    q = F.normalize(torch.ones(130, 8, dtype=torch.float64))
    p = problem(130, 140, 8, ids=None) | {"q": q, "k": -q[:1].expand(140, 8).contiguous()}
    rows = run(ops, p, torch.float32, scale=200.0, both=True)[0]
    lse = rows[:3].sum(0)  # loss, what rounding took, positive
    torch.testing.assert_close(lse, torch.full((130,), 140.0).log() - 200, rtol=0, atol=5e-5)
    assert_budget(p, scale=200.0, both=True)


def test_logits_in_the_thousands():
    p, *others = (problem(200, 200, 16, unit=False, ids="pairs", seed=s) for s in range(7))
    assert_budget(p, *others, scale=100.0)
    mislabelled = p | {"unit": True}  # not unit, said to be: overflow is noticed
    for x, y in zip(
        run(ops, mislabelled, torch.float32, scale=100.0, grads=False),
        run(ops, p, torch.float32, scale=100.0, grads=False), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("n", [40, 300])
@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
def test_logits_in_the_millions_that_differ_by_little(form, n):
    """Whole numbers, whose products float32 holds: p is a softmax of 0, 1, 2, ... and no more."""
    i = torch.arange(n, dtype=torch.float64)
    q, k = torch.stack([0 * i + 3000, i % 3], 1), torch.stack([0 * i + 2500, i % 5], 1)
    p = problem(n, n, 2, unit=False, ids="pairs", symmetric=form == "symmetric")
    k = q if form == "symmetric" else k
    p |= {"q": q, "k": k, "own": k if form == "own" else None, "pivot": None}
    for scale in (1.0, 0.01):
        options = {"both": form == "both", "scale": scale}
        exact = run(reference, p, torch.float64, **options)
        ours = run(ops, p, torch.float32, **options)
        assert exact[0][2].max() > 7e4 * scale
        for name, x, y in zip(NAMES[3:], ours[3:], exact[3:], strict=True):
            if y.numel() and name != "slope":  # a sum of such logits, which cancel
                assert (x - y).abs().max() <= 4e-6 * y.abs().max(), name
        losses = ours[0][0].double(), exact[0][0]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_has_no_finite_loss(bad, unit):
    p = problem(300, 300, 8, ids="pairs", unit=unit)
    p["q"][140, 3] = bad
    rows, cols, *_ = run(ops, p, torch.float32, both=True, grads=False)
    expected = run(reference, p, torch.float32, both=True, grads=False)
    assert torch.isnan(rows[0, 140])
    others = torch.arange(300) != 140
    assert torch.isfinite(rows[:, others]).all()
    assert not torch.isfinite(cols[0][~torch.isfinite(expected[1][0])]).any()


@pytest.mark.parametrize("largest", [10.0, 73.0, 75.0, 117.0, 119.0, 400.0])
@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
def test_rows_of_any_length_around_the_spans_of_a_shift(form, largest):
    """No shift, one below the largest logit possible, the running maximum; one row's columns lie
    so far below that its sum underflows."""
    flags = {"symmetric": form == "symmetric", "own": form == "own", "unit": False}
    problems = [problem(130, 140, 16, seed=seed, **flags) for seed in range(3)]
    for q, k in ((p["q"], p["k"]) for p in problems if form != "symmetric"):
        q[5] = -4 * F.normalize(k[:1])
        k[1:] = F.normalize(k[1:]) + 2 * F.normalize(k[:1])
    lengths = [x.norm(dim=1).max() for x in (problems[0]["q"], problems[0]["k"])]
    scale = largest / float(lengths[0] * lengths[form != "symmetric"])
    for p in problems[1:]:  # as long as those of the first
        for x, length in zip((p["q"], p["k"]), lengths, strict=True):
            x *= length / x.norm(dim=1).max()
    assert_budget(*problems, both=form == "both", scale=scale)


@pytest.mark.parametrize("scale", [100.0, 200.0])
@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
def test_converged_pairs_keep_their_loss_and_gradient(form, scale):
    """Losses far below one rounding of the logits, against float64 on the same float32 rows."""
    make = torch.Generator().manual_seed(3)
    # Brings the other cosines close to one, the closer the larger the scale.
    center = 0.15 * scale**0.5 * torch.randn(1, 32, generator=make)
    a = F.normalize(center + torch.randn(64, 32, generator=make))
    b = F.normalize(a + 0.005 * torch.randn(64, 32, generator=make))
    p = problem(64, 64, 32, ids="pairs") | {
        "row_ids": torch.arange(64),
        "col_ids": torch.arange(64),
    }
    if form == "symmetric":
        z = torch.cat([a, b])
        p |= {"q": z, "k": z, "symmetric": True, "pivot": z[:, 0].double()}
        p |= {"row_ids": torch.arange(64).repeat(2), "col_ids": torch.arange(64).repeat(2)}
    else:
        p |= {"q": a, "k": b, "own": b if form == "own" else None}
    exact = run(reference, p, torch.float64, both=form == "both", scale=scale)
    ours = run(ops, p, torch.float32, both=form == "both", scale=scale)
    assert 1e-7 < exact[0][0].max() < 0.1
    # A logit of 200 is rounded to 1.5e-5: so much of its exponential, and of the loss, is open.
    torch.testing.assert_close(ours[0][0].double(), exact[0][0], rtol=2e-4, atol=1e-13)
    for x, y in zip(ours[4:], exact[4:], strict=True):
        if y.numel():
            assert (x - y).norm() <= 2e-4 * y.norm()


@pytest.mark.parametrize("form", ["rows", "both", "symmetric", "own"])
@pytest.mark.parametrize("n", [60, 500, 1300])
def test_same_bits_for_any_number_of_threads(form, n):
    p = problem(n, n + 77, 40, symmetric=form == "symmetric", own=form == "own")
    results = []
    for threads in (2, 2, 1):
        torch.set_num_threads(threads)
        results.append(run(ops, p, torch.float32, both=form == "both"))
    for other in results[1:]:
        for name, x, y in zip(NAMES, results[0], other, strict=True):
            assert torch.equal(x, y), name


def test_no_scale_below_zero():
    with pytest.raises(RuntimeError, match="scale must be above 0"):
        run(ops, problem(4, 4), torch.float32, scale=-1.0)
