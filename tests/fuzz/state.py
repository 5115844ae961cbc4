"""What writes in place, draws, or has no gradient, beside float64 or a few lines of Python."""

import plain
import torch
import view_cases
from test_random_views import TOLERANCE, check, in_reference

import fastcl.functional as F
from fastcl.functional.random_views import VIEWS
from fastcl.functional.view_parameters import COLOURS, IDENTITY
from fuzz.table import DTYPES, laid_out, size

FORMATS = torch.contiguous_format, torch.channels_last


def _rows(rng, n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d).to(rng.choice(DTYPES))


def _close(ours, expected, dtype, scale=1.0, work=None) -> None:
    """Rounded once to dtype and as a sum in the type that rows of `work` are accumulated in."""
    double = (work or dtype) == torch.float64
    work = torch.finfo(torch.float64 if double else torch.float32).eps
    eps = torch.finfo(dtype).eps
    bound = eps * expected.abs() + 8 * work * scale * (1 + expected.abs())
    bound = bound + torch.finfo(dtype).smallest_normal * eps
    error = (ours.double() - expected).abs()
    assert (error <= bound).all(), f"error {error.max():.2e}, bound {bound.min():.2e}, {dtype}"


def queue_push(rng) -> None:
    """Against a list; a queue may lie in memory in any way."""
    size_, d = size(rng, 70), size(rng, 70)
    queue = laid_out(rng)(torch.zeros(size_, d, dtype=rng.choice(DTYPES)))
    start = rng.choice((0, 1, size_ - 1, 5 * size_ + 2, 2**40))
    pointer, ring = torch.tensor(start), queue.double().clone()
    for _ in range(rng.randint(1, 4)):
        rows = _rows(rng, size(rng, 150), d)
        normalize = rng.random() < 0.5
        F.queue_push_(queue, pointer, laid_out(rng)(rows), normalize=normalize)
        exact = rows.double()
        exact = plain.unit(exact) if normalize else exact
        for i, row in enumerate(exact):
            ring[(start + i) % size_] = row
        start += len(rows)
        assert int(pointer) == start
    _close(queue, ring, queue.dtype, work=torch.float32)


def bank_update(rng) -> None:
    """The last occurrence of an index counts."""
    n, b, d = size(rng, 70), size(rng, 70), size(rng, 130) + 1
    bank = laid_out(rng)(plain.unit(torch.randn(n, d)).to(rng.choice(DTYPES)))
    x, index = _rows(rng, b, d), torch.randint(n, (b,))
    momentum, normalize = rng.choice((0.0, 0.3, 0.5, 0.99, 1.0)), rng.random() < 0.5
    if not normalize:
        x = plain.unit(x.double()).to(x.dtype)
    before, expected, lengths = bank.double().clone(), bank.double().clone(), [1.0]
    # Rows are divided in their own dtype before they are mixed.
    rows = F.unit_rows(x).double() if normalize else x.double()
    for i, row in zip(index.tolist(), rows, strict=True):
        mixed = momentum * before[i] + (1 - momentum) * row
        expected[i] = mixed / mixed.norm().clamp(min=1e-12)
        lengths.append(mixed.norm().clamp(min=1e-6))
    F.bank_update_(bank, index, laid_out(rng)(x), momentum=momentum, normalize=normalize)
    _close(bank, expected, bank.dtype, 1 / float(min(lengths)))


def momentum_update(rng) -> None:
    """16-bit targets are rounded at random: to one of their two neighbours."""
    sizes = [size(rng, 300) for _ in range(rng.randint(1, 6))]
    target = [laid_out(rng)(torch.randn(n).to(rng.choice(DTYPES))) for n in sizes]
    online = [laid_out(rng)(torch.randn(n).to(rng.choice(DTYPES))) for n in sizes]
    momentum = rng.choice((0.0, 1e-3, 0.5, 0.99, 1.0))
    exact = [momentum * t.double() + (1 - momentum) * o.double()
             for t, o in zip(target, online, strict=True)]  # fmt: skip
    if rng.random() < 0.3:
        momentum = torch.tensor(momentum, dtype=torch.float64)
    F.momentum_update_(target, online, momentum)
    for t, x in zip(target, exact, strict=True):
        _close(t, x, t.dtype, 4.0)


def unit_rows(rng) -> None:
    d, dtype = size(rng, 257), rng.choice(DTYPES)
    parts = [torch.randn(size(rng, 60), d).to(dtype) for _ in range(rng.randint(1, 3))]
    for x in parts:
        x *= rng.choice((1, 1, 1e-2, 100))
    _close(F.unit_rows(*map(laid_out(rng), parts)), plain.unit(torch.cat(parts).double()), dtype)


def row_products(rng) -> None:
    n, d, dtype = size(rng, 100), size(rng, 257), rng.choice(DTYPES)
    a, b = torch.randn(2, n, d).to(dtype)
    ours = F.row_products(laid_out(rng)(a), laid_out(rng)(b))
    _close(ours, (a.double() * b.double()).sum(1), ours.dtype, d**0.5)


def sinkhorn(rng) -> None:
    n, m, dtype = size(rng, 150), size(rng, 257), rng.choice(DTYPES)
    scores = (2 * torch.rand(n, m) - 1).to(dtype)
    epsilon, iterations = 10 ** rng.uniform(-1.7, 0), rng.randint(1, 6)
    ours = F.sinkhorn(laid_out(rng)(scores), epsilon=epsilon, iterations=iterations)
    expected = plain.sinkhorn(scores.double(), epsilon=epsilon, iterations=iterations)
    _close(ours, expected, ours.dtype, iterations / epsilon)


def nce_normalizer(rng) -> None:
    b, n, d, dtype = size(rng, 60), size(rng, 150), size(rng, 130), rng.choice(DTYPES)
    x, bank = torch.randn(b, d).to(dtype), plain.unit(torch.randn(n, d)).to(dtype)
    temperature = rng.choice((0.07, 0.5, 1.0))
    ours = F.nce_normalizer(x, laid_out(rng)(bank), temperature=temperature)
    rows = F.unit_rows(x).double()  # rounded to their dtype
    expected = (rows @ bank.double().T / temperature).exp().sum(1).mean()
    # Divided rows may be rounded to their dtype, which moves an exponent by that over temperature.
    eps = torch.finfo(dtype).eps
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    error, bound = (ours.double() - expected).abs(), 8 * eps / temperature * expected
    assert error <= bound, f"error {error:.2e}, bound {bound:.2e}, {dtype}"


def noise_indices(rng) -> None:
    b, n, count = size(rng, 60), size(rng, 150), size(rng, 60)
    target, seed = torch.randint(n, (b,)), rng.randrange(2**31)
    drawn = [
        F.noise_indices(target, n, count, generator=torch.Generator().manual_seed(seed))
        for _ in "12"
    ]
    assert torch.equal(*drawn) and drawn[0].shape == (b, count + 1)
    assert torch.equal(drawn[0][:, 0], target)
    assert ((drawn[0] >= 0) & (drawn[0] < n)).all()


def random_views(rng) -> None:
    h, w, side = size(rng, 70), size(rng, 70), size(rng, 48)
    kernel = rng.choice([k for k in (1, 3, 5, 9, 23) if k // 2 < side])
    dtype = rng.choice(list(TOLERANCE))
    channels = rng.choice((1, 2, 3, 3, 3, 4, 5))
    x = view_cases.image(channels, h, w, dtype, seed=rng.randrange(2**31))
    g = torch.Generator().manual_seed(rng.randrange(2**31))
    parameters = torch.stack([view_cases.drawn(h, w, g) for _ in range(rng.randint(1, 4))])
    if channels != 3:
        parameters[:, COLOURS] = torch.tensor(IDENTITY)
    # Poison of integers would not fit into pixels.
    laid = laid_out(rng)(x) if dtype == torch.float32 else x
    arguments = {"images": laid[None], "parameters": parameters[None], "size": side}
    views = F.random_views(**arguments, kernel=kernel)
    expected = in_reference(x, parameters, side, kernel)
    check(views[:, 0], expected, TOLERANCE[dtype][1], parameters[:, -1])
    form = {"dtype": rng.choice(VIEWS), "memory_format": rng.choice(FORMATS)}
    again = F.random_views(**arguments, kernel=kernel, **form)
    assert torch.equal(again, views.to(form["dtype"])), form
