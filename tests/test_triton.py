"""The Triton kernels on the CPU, under Triton's interpreter, against the float64 reference.

The interpreter must be chosen before triton is imported, so outside of it this file holds two
tests that run it once more in a process of its own.
"""

import os
import subprocess
import sys

import pytest
import torch

from fastcl import reference

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def run_interpreted(marker):
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-x", "-m", marker]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


if not INTERPRETED:

    def test_interpreted():
        run_interpreted("not slow")

    @pytest.mark.slow
    def test_interpreted_slow():
        run_interpreted("slow")


@pytest.fixture
def kernels(monkeypatch):
    """The launchers, with tiles that a small matrix has several of and poisoned buffers."""
    if not INTERPRETED:
        pytest.skip("runs in the interpreter's process")
    from fastcl.kernels import info_nce, info_nce_common, info_nce_config

    use_tiles(monkeypatch, info_nce_config)
    repair_bfloat16(monkeypatch)
    monkeypatch.setattr(info_nce_common, "empty", poisoned)
    monkeypatch.setattr(info_nce_common, "BLOCK", 16)
    monkeypatch.setattr(info_nce_common, "PARTS", 4)
    return info_nce


def repair_bfloat16(monkeypatch):
    """Products and rounding as on the device.

    The interpreter keeps bfloat16 as uint16; its dot multiplies those integers, its cast truncates.
    """
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain = InterpreterBuilder.create_dot

    def widen(x):
        if x.dtype.scalar.name != "bf16":
            return x
        import triton.language as tl

        return TensorHandle((x.data.astype("uint32") << 16).view("float32"), tl.float32)

    def create_dot(self, a, b, *rest):
        return plain(self, widen(a), widen(b), *rest)

    plain_cast = InterpreterBuilder.cast_impl

    def cast_impl(self, x, to):
        if (x.dtype.scalar.name, to.scalar.name) != ("fp32", "bf16"):
            return plain_cast(self, x, to)
        bits = x.data.view("uint32")  # to nearest, ties to even
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return TensorHandle(bits.astype("uint16"), to.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast_impl)


def use_tiles(monkeypatch, config, chunked=False, bulk=False, launch_tiles=2, processors=3):
    """Tiles of 16, several launches per forward, several chunks per gradient."""

    def plan(q, k):
        width = max(16, 1 << (q.shape[1] - 1).bit_length())
        loop, own = config.Tile(16, 16, 16, 1, 1), config.Tile(16, 16, width, 1, 1)
        sums = loop if chunked else own
        own = None if chunked or q.shape[1] > 256 else own
        return config.Plan(sums, own, loop, bulk, processors, "ieee")

    monkeypatch.setattr(config, "plan", plan)
    monkeypatch.setattr(config, "supported", lambda q: q.dtype != torch.float64)
    monkeypatch.setattr(config, "POSITIVES", config.Tile(16, 16, 16, 1, 1))
    monkeypatch.setattr(config, "SCAN", 2)
    monkeypatch.setattr(config, "LAUNCH_TILES", launch_tiles)
    monkeypatch.setattr(config, "CHUNK", 32)


def poisoned(like, *shape, dtype=torch.float32):
    out = torch.empty(shape, dtype=dtype, device=like.device)
    return out.fill_(torch.nan if dtype.is_floating_point else -(2**30))


def unit_rows(n, d, seed, dtype=torch.float32):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1).to(dtype)


def case(n=21, m=35, d=24, dtype=torch.float32, scale=10.0, symmetric=False, **changes):
    """Arguments of the forward by name."""
    q = unit_rows(n, d, 0, dtype)
    if symmetric:
        changes["col_ids"] = changes.get("row_ids")
    k = q if symmetric else unit_rows(m, d, 1, dtype)
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


def assert_close(name, ours, plain, exact, eps, floor=1.0):
    """At most twice as wrong as plain PyTorch, and a little."""
    assert ours.shape == exact.shape, name
    finite = exact.isfinite()
    assert torch.equal(ours[~finite].double(), exact[~finite]), name
    if not finite.any():
        return
    error = (ours[finite].double() - exact[finite]).abs().max()
    allowed = 2 * (plain[finite].double() - exact[finite]).abs().max()
    allowed = allowed + 4 * eps * (floor + exact[finite].abs().max())
    assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


def pick(statistics, part):
    """One statistic [n] in float64; the second row is no result, only what rounding took."""
    loss, rest, positive, count = statistics.double()
    return {"loss": loss, "lse": loss + positive + rest, "positive": positive, "count": count}[part]


def check_forward(kernels, arguments):
    ours = kernels.info_nce_forward(**arguments)
    plain = reference.info_nce_forward(**arguments)
    exact = reference.info_nce_forward(**in_float64(arguments))
    eps = torch.finfo(torch.float32).eps
    for name, index in (("rows", 0), ("cols", 1)):
        for part in ("loss", "lse", "positive", "count"):
            assert_close(
                f"{name} {part}", *(pick(x[index], part) for x in (ours, plain, exact)), eps
            )
    assert torch.equal(ours[2], exact[2]), "rank"
    if arguments["frozen"]:
        assert_close("weighted", ours[3], plain[3], exact[3], torch.finfo(arguments["q"].dtype).eps)
    return ours


def check_backward(kernels, arguments, losses=True, positives=True, need_q=True, need_k=True):
    """Gradients from random upstream gradients, relative to the largest entry."""
    forward = kernels.info_nce_forward(**arguments)
    exact_forward = reference.info_nce_forward(**in_float64(arguments))
    plain_forward = reference.info_nce_forward(**arguments)
    random = torch.Generator().manual_seed(7)
    n, m, both = len(arguments["q"]), len(arguments["k"]), arguments["both"]

    def upstream(size, wanted):
        return torch.rand(size, generator=random) + 0.1 if wanted else None

    grads = (
        upstream(n, losses), upstream(n, positives),
        upstream(m, both and losses), upstream(m, both and positives),
    )  # fmt: skip
    names = "q", "k", "scale", "logit_scale", "row_ids", "col_ids"

    def backward(function, arguments, statistics, grads):
        return function(
            *grads, *(arguments[name] for name in names), statistics[0], statistics[1],
            arguments["symmetric"], arguments["positives_in"], arguments["extra"] is not None,
            arguments["unit"], need_q, need_k,
        )  # fmt: skip

    ours = backward(kernels.info_nce_backward, arguments, forward, grads)
    plain = backward(reference.info_nce_backward, arguments, plain_forward, grads)
    wide = [None if g is None else g.double() for g in grads]
    exact = backward(reference.info_nce_backward, in_float64(arguments), exact_forward, wide)
    eps = torch.finfo(arguments["q"].dtype).eps
    for name, *three in zip(("dq", "dk"), ours, plain, exact, strict=True):
        assert_close(name, *three, eps, floor=0.0) if three[2].numel() else None
        assert three[0].shape == three[2].shape


CASES = {
    "one direction": case(**ids(21, 35)),
    "both": case(**ids(21, 35), both=True),
    "symmetric": case(n=35, symmetric=True, **ids(35, 35, 17)),
    "symmetric labels": case(n=21, symmetric=True, **ids(21, 21, 3)),
    "decoupled": case(n=33, symmetric=True, **ids(33, 33, 16), positives_in=False),
    "decoupled both": case(**ids(21, 35, 9), both=True, positives_in=False),
    "several positives": case(**ids(21, 35, 5), both=True),
    "no positive": case(both=True),
    "one row": case(n=1, m=1, both=True, **ids(1, 1)),
    "one row alone": case(n=1, symmetric=True, **ids(1, 1)),
    "exact tiles": case(n=16, m=32, d=16, **ids(16, 32), both=True),
    "wide ids": case(
        row_ids=torch.arange(21) * 2**40, col_ids=torch.arange(35) * 2**40 - 2**42, both=True
    ),
    "width 1": case(d=1, **ids(21, 35), both=True),
    "width 100": case(d=100, **ids(21, 35)),
    "width 160": case(n=17, m=20, d=160, **ids(17, 20), both=True),
    "width 320": case(n=17, m=20, d=320, **ids(17, 20), both=True),
    "logit scale": case(scale=2.0, logit_scale=torch.tensor(7.0), both=True, **ids(21, 35)),
    "scale 100": case(scale=100.0, both=True, **ids(21, 35)),
    "scale 200": case(n=33, scale=200.0, symmetric=True, **ids(33, 33, 16)),
    "not unit": case(unit=False, both=True, **ids(21, 35), scale=400.0),
    "not unit symmetric": case(n=33, unit=False, symmetric=True, **ids(33, 33, 7), scale=900.0),
    "rank": case(**ids(21, 35), pivot=torch.linspace(-0.3, 0.6, 21)),
    "rank symmetric": case(
        n=33, symmetric=True, **ids(33, 33, 16), pivot=torch.linspace(-0.3, 0.6, 33)
    ),
    "extra": case(**ids(21, 35), extra=torch.linspace(-1, 1, 21)),
    "frozen": case(extra=torch.linspace(-1, 1, 21), pivot=torch.linspace(-1, 1, 21), frozen=True),
    "frozen ids": case(**ids(21, 35, 9), extra=torch.linspace(-1, 1, 21), frozen=True),
    "frozen alone": case(frozen=True, scale=100.0),
    "frozen wide": case(n=17, m=20, d=320, extra=torch.linspace(-1, 1, 17), frozen=True),
    "frozen positives": case(**ids(21, 35, 9), both=True, frozen=True),
    "frozen symmetric": case(n=33, symmetric=True, frozen=True),
}


# What runs without the slow tests: one case of every path.
QUICK = {
    (torch.float32, "several positives"), (torch.float32, "symmetric"),
    (torch.float32, "one row"), (torch.float32, "rank"), (torch.float32, "extra"),
    (torch.float32, "frozen"), (torch.float32, "frozen ids"),
    (torch.bfloat16, "symmetric"), (torch.bfloat16, "frozen"), (torch.float16, "width 100"),
}  # fmt: skip


def cases(names):
    dtypes = torch.float32, torch.bfloat16, torch.float16
    return [
        pytest.param(name, dtype, marks=[] if (dtype, name) in QUICK else [pytest.mark.slow])
        for name in names
        for dtype in dtypes
    ]


@pytest.mark.parametrize("name,dtype", cases(CASES))
def test_forward(kernels, name, dtype):
    arguments = dict(CASES[name])
    for side in ("q", "k"):
        arguments[side] = arguments[side].to(dtype)
    if arguments["pivot"] is not None:  # ties of a rounded product have no right rank
        s = arguments["q"].double() @ arguments["k"].double().T
        assert (s - arguments["pivot"][:, None].double()).abs().min() > 1e-6
    check_forward(kernels, arguments)


@pytest.mark.parametrize(
    "chunked", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["own", "chunked"]
)
@pytest.mark.parametrize("name,dtype", cases([name for name in CASES if "frozen" not in name]))
def test_backward(kernels, monkeypatch, name, dtype, chunked):
    from fastcl.kernels import info_nce_config

    use_tiles(monkeypatch, info_nce_config, chunked=chunked)
    arguments = dict(CASES[name])
    for side in ("q", "k"):
        arguments[side] = arguments[side].to(dtype)
    check_backward(kernels, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True], ids=["own", "chunked"])
@pytest.mark.parametrize("losses,positives", [(True, False), (False, True), (False, False)])
def test_absent_gradients(kernels, monkeypatch, losses, positives, chunked):
    from fastcl.kernels import info_nce_config

    use_tiles(monkeypatch, info_nce_config, chunked=chunked)
    for name in ("both", "symmetric", "one direction"):
        check_backward(kernels, CASES[name], losses, positives)
    check_backward(kernels, CASES["both"], losses, positives, need_k=False)
    check_backward(kernels, CASES["both"], losses, positives, need_q=False)


def converged(symmetric, scale, n=17, d=24, cosine=0.9):
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
    """Loss and the sum's gradient where each row has one positive, without 1 - p: float64."""
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
    if arguments["symmetric"]:
        return losses, (scale * (g + g.T) @ q,)
    return losses, (scale * g @ k, scale * g.T @ q)


@pytest.mark.parametrize("chunked", [False, True], ids=["own", "chunked"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("scale", [100.0, pytest.param(200.0, marks=pytest.mark.slow)])
def test_converged(kernels, monkeypatch, scale, symmetric, chunked):
    """A loss far below the rounding of its logits, and its gradient, stay exact."""
    from fastcl.kernels import info_nce_config

    use_tiles(monkeypatch, info_nce_config, chunked=chunked)
    arguments = converged(symmetric, scale)
    rows, cols, *_ = kernels.info_nce_forward(**arguments)
    losses, wanted = exact_pairs(arguments)
    assert losses[0].min() < 1e-9
    for ours, exact in zip((rows, cols), losses, strict=False):
        torch.testing.assert_close(ours[0].double(), exact, rtol=2e-4, atol=1e-37)
    ones = torch.ones(len(arguments["q"]))
    gradients = kernels.info_nce_backward(
        ones, None, None if symmetric else ones, None, arguments["q"], arguments["k"], scale,
        None, arguments["row_ids"], arguments["col_ids"], rows, cols, symmetric, True, False,
        True, True, True,
    )  # fmt: skip
    for got, exact in zip(gradients, wanted, strict=False):
        assert (got - exact).norm() <= 2e-3 * exact.norm()


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
        kernels.info_nce_backward(
            torch.full((21,), g), None, torch.full((35,), g), None, arguments["q"],
            arguments["k"], 10.0, None, arguments["row_ids"], arguments["col_ids"],
            *kernels.info_nce_forward(**arguments)[:2], False, True, False, True, True, True,
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
    rows, cols, *_ = kernels.info_nce_forward(**arguments)
    touched = rows[0] if side == "k" else cols[0]
    assert not touched.isfinite().any()
    other = cols[0] if side == "k" else rows[0]
    assert not other[3].isfinite()
    assert other[4:].isfinite().all()


def test_descriptors(kernels, monkeypatch):
    """The tiles through tensor descriptors, zero beyond the border."""
    from fastcl.kernels import info_nce_config

    use_tiles(monkeypatch, info_nce_config, bulk=True)
    check_forward(kernels, CASES["frozen"])
    check_backward(kernels, CASES["both"])


def test_same_bits_twice(kernels):
    for name in ("symmetric",):
        first, second = (kernels.info_nce_forward(**CASES[name]) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_float64_goes_to_the_reference(kernels):
    arguments = in_float64(CASES["both"])
    ours = kernels.info_nce_forward(**arguments)
    exact = reference.info_nce_forward(**arguments)
    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("launch_tiles,processors", [(1, 1), (3, 40), (128, 8)])
def test_splits(kernels, monkeypatch, launch_tiles, processors):
    """However the work is divided, the numbers are the same."""
    from fastcl.kernels import info_nce_config

    use_tiles(monkeypatch, info_nce_config, launch_tiles=launch_tiles, processors=processors)
    for name in ("both", "symmetric", "several positives", "frozen ids", "not unit"):
        check_forward(kernels, CASES[name])
        if "frozen" not in name:
            check_backward(kernels, CASES[name])


@pytest.mark.slow
def test_realistic(kernels, monkeypatch):
    """The tiles of sm_90 as they are."""
    from fastcl.kernels import info_nce_config as config

    def plan(q, k):
        return config.Plan(*config.tiles(9, q.shape[1], 2, "ieee"), False, 132, "ieee")

    monkeypatch.setattr(config, "plan", plan)
    for d in (48, 128, 200, 384):
        arguments = case(n=300, m=280, d=d, dtype=torch.bfloat16, both=True, **ids(300, 280))
        check_forward(kernels, arguments)
        check_backward(kernels, arguments)
