"""Laws of the momentum update and of its random rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcl import reference
from fastcl._library import ops
from fastcl.momentum import momentum_update_

pytestmark = pytest.mark.instruction_sets

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOW = (torch.float16, torch.bfloat16)
UPDATES = (reference.momentum_update_, ops.momentum_update_)
KERNELS = pytest.mark.parametrize("update", UPDATES, ids=("reference", "compiled"))
MOMENTA = (0.0, 1e-3, 0.3, 0.5, 0.9, 0.996, 0.99999, 1.0)
SIZES = (1, 2, 3, 7, 9, 257, 16383, 16385)
PAIRS = pytest.mark.parametrize("into, source", [(a, b) for a in DTYPES for b in DTYPES])


def _seed(value: int = 5) -> torch.Tensor:
    return torch.tensor(value)


def _lists(into, source, sizes=SIZES, seed=0):
    torch.manual_seed(seed)
    target = [torch.randn(n).to(into) for n in sizes]
    return target, [torch.randn(n).to(source) for n in sizes]


def _clone(tensors):
    return [t.clone() for t in tensors]


def _equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@KERNELS
@PAIRS
@pytest.mark.parametrize("momentum", (0.3, 0.996))
def test_against_float64(update, into, source, momentum):
    target, online = _lists(into, source)
    want = [momentum * t.double() + (1 - momentum) * o.double()
            for t, o in zip(target, online, strict=True)]  # fmt: skip
    update(target, online, momentum, None, None)
    # Rounded once to the target, plus three roundings of the accumulator.
    work = torch.finfo(torch.float64 if into == torch.float64 else torch.float32).eps
    for t, o, w in zip(target, online, want, strict=True):
        last = torch.finfo(into).eps / 2 * w.abs() + torch.finfo(into).smallest_normal * 2**-10
        bound = last + 4 * work * (1 + w.abs() + o.double().abs())
        assert bool(((t.double() - w).abs() <= bound).all())


@KERNELS
@PAIRS
def test_both_ends_and_the_fixed_point_are_exact(update, into, source):
    target, online = _lists(into, source)
    for seed in (None, _seed()) if into in LOW else (None,):
        kept = _clone(target)
        update(kept, online, 1.0, None, seed)
        assert _equal(kept, target)
        if torch.promote_types(into, source) == into:  # the target can hold online
            update(kept, online, 0.0, None, seed)
            assert _equal(kept, [o.to(into) for o in online])
            for momentum in MOMENTA:
                update(kept, online, momentum, None, seed)
                assert _equal(kept, [o.to(into) for o in online])


@KERNELS
def test_ends_hold_for_infinity_and_signed_zero(update):
    special = torch.tensor([torch.inf, -torch.inf, -0.0, 0.0, 3e38])
    other = torch.tensor([1.0, torch.inf, 0.0, -0.0, torch.nan])
    for momentum, want in ((1.0, special), (0.0, other)):
        t = special.clone()
        update([t], [other], momentum, None, None)
        assert torch.equal(t.view(torch.int32), want.view(torch.int32))
    t = special.clone()
    update([t], [special.clone()], 0.9, None, None)
    assert torch.equal(t, special)


FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)


@KERNELS
@settings(max_examples=150, deadline=None)
@given(
    t=st.lists(FLOATS, min_size=1, max_size=20), data=st.data(), momentum=st.floats(0, 1),
    into=st.sampled_from(DTYPES), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_never_outside_the_interval(update, t, data, momentum, into, seed):
    o = data.draw(st.lists(FLOATS, min_size=len(t), max_size=len(t)))
    limit = torch.finfo(into).max
    old = torch.tensor(t, dtype=torch.float64).clamp(-limit, limit).to(into)
    online = torch.tensor(o, dtype=torch.float64).clamp(-limit, limit).to(into)
    new = old.clone()
    update([new], [online], momentum, None, _seed(seed) if into in LOW else None)
    assert bool((new >= torch.minimum(old, online)).all())
    assert bool((new <= torch.maximum(old, online)).all())


@PAIRS
def test_every_kernel_gives_the_same_bits(into, source):
    """Random rounding included: what a seed gives does not depend on where it runs."""
    for momentum in MOMENTA:
        results = []
        for update in UPDATES:
            target, online = _lists(into, source)
            seed = _seed((1 << 32) - 1)
            update(target, online, momentum, None, seed)
            assert int(seed) == 0
            results.append(target)
        assert _equal(*results)


@pytest.mark.parametrize("dtype", LOW)
def test_rounding_of_special_numbers_is_the_same(dtype):
    values = torch.tensor([torch.inf, -torch.inf, torch.nan, 65504.0, 65519.0, 7e4, -7e4, 3.39e38])
    scale = 2.0 ** torch.arange(-30, -10)
    values = torch.cat([values, (torch.randn(40)[:, None] * scale).flatten()])
    results = []
    for update in UPDATES:
        t = torch.zeros_like(values, dtype=dtype)
        update([t], [values], 0.0, None, _seed())
        results.append(t.nan_to_num(123.0))
    assert _equal(results[:1], results[1:])


@KERNELS
@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("value", (0.7, -3.3, 3.3e-6, 1e-4))
def test_random_rounding_is_right_on_average(update, dtype, value):
    n = 1 << 17
    online = torch.full((n,), value)
    target = torch.zeros(n, dtype=dtype)
    update([target], [online], 0.0, None, _seed())
    got = target.double()
    low, high = got.min(), got.max()
    assert low <= online[0] <= high and got.unique().numel() == 2
    step = float(high - low)
    assert abs(float(got.mean()) - float(online[0])) < 5 * step / 2 / n**0.5  # five sigma
    up = (got == high).double()
    up = up - up.mean()
    for lag in (1, 2, 16):  # neighbours, which share a hash, and vectors: uncorrelated
        assert abs(float((up[lag:] * up[:-lag]).mean())) < 5 * float(up.var()) / n**0.5


@KERNELS
@pytest.mark.parametrize("dtype", LOW)
def test_a_low_precision_target_moves(update, dtype):
    steps, n, momentum = 300, 2048, 0.999
    target, online = torch.ones(n, dtype=dtype), torch.full((n,), 1.05, dtype=dtype)
    frozen, seed = target.clone(), _seed(0)
    for _ in range(steps):
        update([target], [online], momentum, None, seed)
        update([frozen], [online], momentum, None, None)
    want = 1 + (1 - momentum**steps) * (float(online[0]) - 1)
    assert abs(float(target.double().mean()) - want) < 0.05 * (want - 1)
    assert int(seed) == steps
    assert torch.equal(frozen, torch.ones_like(frozen))  # negative control: to nearest


def test_seed_decides():
    runs = []
    for seed in (1, 1, 2):
        t = torch.ones(4096, dtype=torch.bfloat16)
        momentum_update_([t], [torch.zeros(4096)], 0.999, seed=_seed(seed))
        runs.append(t)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    runs = []
    for _ in range(2):  # without one: torch's generator
        torch.manual_seed(3)
        t = torch.ones(4096, dtype=torch.bfloat16)
        momentum_update_([t], [torch.zeros(4096)], 0.999)
        runs.append(t)
    assert torch.equal(*runs) and runs[0].unique().numel() > 1


@KERNELS
@pytest.mark.parametrize("dtype", DTYPES)
def test_device_momentum_equals_the_float(update, dtype):
    number = torch.tensor(0.9, dtype=dtype)
    a, online = _lists(torch.float32, torch.float32)
    b = _clone(a)
    update(a, online, 0.0, number, None)
    update(b, online, float(number), None, None)
    assert _equal(a, b)


@KERNELS
def test_integers_are_copied_and_many_tensors_served(update):
    """1,500 tensors: more than one launch holds; empty ones in between."""
    target, online = _lists(torch.float32, torch.bfloat16, [i % 5 for i in range(1500)])
    counters = [torch.tensor(3), torch.arange(40000), torch.tensor([True, False])]
    news = [torch.tensor(9), torch.arange(40000).flip(0), torch.tensor([False, True])]
    want = [torch.lerp(t, o.float(), 0.1) for t, o in zip(target, online, strict=True)]
    update(target + counters, online + news, 0.9, None, None)
    assert _equal(counters, news)
    for t, w in zip(target, want, strict=True):
        torch.testing.assert_close(t, w, rtol=1e-6, atol=1e-7)


def test_layouts():
    """Offsets, channels_last, transposes and slices; neighbours in memory stay untouched."""
    base = torch.full((300,), torch.nan)
    views = [base[1:100], base[101:299:2]]
    conv = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    target = [*views, conv, torch.randn(6, 4).T, torch.zeros(0)]
    for view in views:
        view.copy_(torch.randn(99))
    online = [torch.randn(198)[::2], torch.randn(100)[1:], torch.randn(4, 3, 5, 5),
              torch.randn(4, 6), torch.zeros(0)]  # fmt: skip
    both = conv.clone()
    want = [torch.lerp(t, o, 0.25) for t, o in zip(target, online, strict=True)]
    momentum_update_(target, online, 0.75)
    torch.testing.assert_close(target, want)
    assert base.isnan().sum() == 300 - 99 * 2
    momentum_update_([both], [conv], 0.5)  # both channels_last: taken as they lie
    torch.testing.assert_close(both, both.lerp(both, 0.5))
    with pytest.raises(RuntimeError):
        ops.momentum_update_([torch.ones(1).expand(4)], [torch.ones(4)], 0.5, None, None)
