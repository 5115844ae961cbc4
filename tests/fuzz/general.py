"""The general contrast with any options together, in float64 against its definition."""

import plain_contrast
import torch
from positive_draws import drawn, leaves

import fastcl.functional as F
from fuzz.table import laid_out, size


def contrast(rng) -> None:
    n, d = max(2, size(rng, 120)), size(rng, 130)
    n += n % 2  # labels of a margin come in pairs
    query, key, options = drawn(rng.choice, (n,), (d,))
    options["normalize"] = rng.random() < 0.7
    if options["normalize"] is False:  # logits as large as the dot product of raw rows
        query, key = query / d**0.5, None if key is None else key / d**0.5
    inputs = leaves(lambda name: rng.random() < 0.6, query, key, options)
    ours = F.contrast(laid_out(rng)(query), None if key is None else laid_out(rng)(key), **options)
    assert_equal(ours, plain_contrast.contrast(query, key, **options), inputs)


def assert_equal(ours, plain, inputs) -> None:
    """Values, and the gradients of any function of them; what is learned by one is by the other."""
    torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-8)
    assert ours.requires_grad == plain.requires_grad
    if plain.requires_grad:
        upstream = torch.randn_like(plain)
        found, expected = (
            torch.autograd.grad(
                (x * upstream).sum(), inputs, allow_unused=True, materialize_grads=True
            )
            for x in (ours, plain)
        )
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def false_negatives(rng) -> None:
    """Cosines are numbers at random: none is at the margin to the last digit."""
    n, d = max(2, size(rng, 120)), size(rng, 60)
    query, key = torch.randn(2, n, d, dtype=torch.float64)
    margin, guide = rng.choice((0.0, 0.1, 0.5)), None
    a, b = query, key
    if rng.random() < 0.5:
        guide = a, b = tuple(torch.randn(2, n, rng.randint(2, 9), dtype=torch.float64))
    if a.shape[1] == 1:  # all cosines are one or minus one
        return
    s = F.unit_rows(a) @ F.unit_rows(b).T
    expected = (s > s.diagonal()[:, None] + margin).fill_diagonal_(False).sum(1)
    assert torch.equal(F.false_negatives(query, key, margin=margin, guide=guide), expected)
