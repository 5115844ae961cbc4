"""Temperatures and scales of fastcl.compat that are learned, negative or of NumPy."""

import numpy
import pytest
import torch
import torch.nn.functional as F
from test_compat_plain import clip, nt_xent, rows, siglip, sup_contrast
from torch import nn

from fastcl.compat import info_nce, lightly, open_clip, solo, supcontrast

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])


def _nce(q, k, t, negatives=None, paired=False):
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    if negatives is None:
        return F.cross_entropy(q @ k.T / t, torch.arange(len(q)))
    others = F.normalize(negatives, dim=-1)
    s = torch.einsum("nd,nmd->nm", q, others) if paired else q @ others.T
    s = torch.cat([(q * k).sum(1, keepdim=True), s], 1) / t
    return F.cross_entropy(s, torch.zeros(len(q), dtype=torch.long))


def _moco(q, k, queue, t):
    s = torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) / t
    return F.cross_entropy(s, torch.zeros(len(q), dtype=torch.long))


def _solo_simclr(z, t):
    e = F.normalize(z, dim=1)
    e = (e @ e.T / t).exp() * ~torch.eye(len(z), dtype=torch.bool)
    return -((e * (LABELS[:, None] == LABELS)).sum(1) / e.sum(1)).log().mean()


def _sup_con(a, b, t):
    features = torch.stack([F.normalize(a, dim=1), F.normalize(b, dim=1)], 1)
    return sup_contrast(features, LABELS[:, None] == LABELS, t, 0.07)


def _features(loss):
    return lambda a, b: loss(torch.stack([F.normalize(a, dim=1), F.normalize(b, dim=1)], 1), LABELS)


QUEUE, MASK = torch.randn(5, 7, dtype=torch.float64), torch.eye(16).roll(3, 0).bool()
NEGATIVES = torch.randn(8, 6, 5, dtype=torch.float64)
FORMS = {
    "nt_xent": (lambda t: lightly.NTXentLoss(t), nt_xent),
    "dcl": (lambda t: lightly.DCLLoss(t), lambda a, b, t: nt_xent(a, b, t, True)),
    "dcl_weighted": (
        lambda t: lightly.DCLLoss(t, weight_fn=lambda a, b: torch.ones(len(a))),
        lambda a, b, t: nt_xent(a, b, t, True),
    ),
    "info_nce": (lambda t: info_nce.InfoNCE(t), _nce),
    "unpaired": (
        lambda t: lambda a, b: info_nce.info_nce(a, b, NEGATIVES[0], t),
        lambda a, b, t: _nce(a, b, t, NEGATIVES[0]),
    ),
    "paired": (
        lambda t: lambda a, b: info_nce.InfoNCE(t, negative_mode="paired")(a, b, NEGATIVES),
        lambda a, b, t: _nce(a, b, t, NEGATIVES, True),
    ),
    "nnclr": (lambda t: lambda a, b: solo.nnclr_loss_func(a, b, t), _nce),
    "mocov3": (
        lambda t: lambda a, b: solo.mocov3_loss_func(a, b, t),
        lambda a, b, t: _nce(a, b, t) * 2 * t,
    ),
    "mocov2": (
        lambda t: lambda a, b: solo.mocov2plus_loss_func(a, b, QUEUE, t),
        lambda a, b, t: _moco(a, b, QUEUE, t),
    ),
    "solo_simclr": (
        lambda t: lambda a, b: solo.simclr_loss_func(a, LABELS, t) + 0 * b.sum(),
        lambda a, b, t: _solo_simclr(a, t) + 0 * b.sum(),
    ),
    "two_views": (lambda t: lambda a, b: solo.simclr_two_views_loss_func(a, b, t), nt_xent),
    "two_views_more": (
        lambda t: lambda a, b: solo.simclr_two_views_loss_func(a, b, t, MASK),
        lambda a, b, t: _masked(a, b, t),
    ),
    "sup_con": (lambda t: _features(supcontrast.SupConLoss(t)), _sup_con),
}


def _masked(a, b, t):
    z, n = F.normalize(torch.cat([a, b]), dim=1), len(a)
    s = (z @ z.T / t).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    mask = MASK | torch.eye(2 * n).roll(n, 1).bool()
    own = torch.where(mask, s, 0).sum(1) / mask.sum(1)
    return (s.logsumexp(1) - own).mean()


def assert_same(ours, plain, inputs):
    """In float64: logits of up to 20 are rounded to 4e-15, which their exponentials and a gradient
    of the temperature multiply by as much again; a wrong sign or share is of the size of one."""
    values = ours(*inputs), plain(*inputs)
    torch.testing.assert_close(values[0], values[1].to(values[0]), rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(x, inputs, allow_unused=True) for x in values]
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y.to(x), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 0.1, -0.4])
@pytest.mark.parametrize("name", FORMS)
def test_a_learned_temperature_has_its_gradient(name, temperature):
    make, plain = FORMS[name]
    a, b = (x.requires_grad_() for x in rows(8, 5, "a", "b").values())
    t = nn.Parameter(torch.tensor(temperature, dtype=torch.float64))
    assert_same(lambda a, b, t: make(t)(a, b), plain, (a, b, t))


@pytest.mark.parametrize("temperature", [0.5, -0.4])
@pytest.mark.parametrize("name", FORMS)
def test_a_temperature_of_any_kind(name, temperature):
    make, plain = FORMS[name]
    a, b = (x.requires_grad_() for x in rows(8, 5, "a", "b").values())
    for kind in (numpy.float64, numpy.float32, lambda x: torch.tensor([x], dtype=torch.float64)):
        t = kind(temperature)
        number = t if isinstance(t, torch.Tensor) else float(t)
        assert_same(make(t), lambda a, b, number=number: plain(a, b, number), (a, b))


def test_a_learned_temperature_with_a_bank():
    a, b = (x.float().requires_grad_() for x in rows(4, 5, "a", "b").values())
    t = nn.Parameter(torch.tensor(0.2))
    loss = lightly.NTXentLoss(t, memory_bank_size=(7, 5))
    bank = loss.memory_bank.bank.clone()
    q, k = F.normalize(a, dim=1), F.normalize(b, dim=1)
    want = torch.autograd.grad(_moco(q, k, bank.T, t), (a, b, t))
    torch.testing.assert_close(torch.autograd.grad(loss(a, b), (a, b, t)), want)


def test_a_learned_temperature_of_sup_con():
    """lightly has no such class: without labels it is NT-Xent times the temperature."""
    a, b = (x.requires_grad_() for x in rows(8, 5, "a", "b").values())
    t = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    assert_same(
        lambda a, b, t: lightly.SupConLoss(t)(a, b), lambda a, b, t: t * nt_xent(a, b, t), (a, b, t)
    )


SCALES = [3.0, 0.0, 1e-310, -3.0, [[1.0], [-2.0], [0.0], [3.0], [0.5]]]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bias", [-1.5, [-1.0, 0.0, 2.0, 0.5, -3.0]])
@pytest.mark.parametrize(
    "ours, plain", [(open_clip.ClipLoss, clip), (open_clip.SigLipLoss, siglip)]
)
def test_open_clip_takes_any_scale_and_bias(ours, plain, scale, bias):
    """Of each row its own, zero, and below; a clip of its own scale per row has two matrices."""
    a, b = (x.requires_grad_() for x in rows(5, 4, "a", "b").values())
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (scale, bias))

    def both(a, b, scale, bias):
        labels = torch.arange(5)
        first, second = scale * a @ b.T + bias, scale * b @ a.T + bias
        return (F.cross_entropy(first, labels) + F.cross_entropy(second, labels)) / 2

    assert_same(ours(), both if plain is clip else plain, (a, b, scale, bias))


@pytest.mark.parametrize("kind", [numpy.float32, numpy.float64, numpy.array, int])
def test_open_clip_takes_numbers_of_any_kind(kind):
    a, b = (x.requires_grad_() for x in rows(5, 4, "a", "b").values())
    for number in (2, -2, 0):
        scale, bias = kind(number), kind(-1)
        for ours, plain in ((open_clip.ClipLoss, clip), (open_clip.SigLipLoss, siglip)):
            assert_same(
                lambda a, b, f=ours, s=scale, c=bias: f()(a, b, s, c),
                lambda a, b, f=plain, s=float(number): f(a, b, s, -1.0),
                (a, b),
            )


def test_a_scale_that_nobody_may_look_at(monkeypatch):
    """As on an accelerator, where a look would wait: the sign stays a tensor."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    a, b = (x.requires_grad_() for x in rows(8, 5, "a", "b").values())
    for number in (2.0, -2.0, 0.0):
        scale = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        for ours, plain in ((open_clip.ClipLoss, clip), (open_clip.SigLipLoss, siglip)):
            assert_same(
                lambda a, b, s, f=ours: f()(a, b, s, 0.0),
                lambda a, b, s, f=plain: f(a, b, s, 0.0),
                (a, b, scale),
            )
    for number in (0.3, -0.3):
        t = torch.tensor(number, dtype=torch.float64, requires_grad=True)
        for make, plain in (FORMS[x] for x in ("nt_xent", "dcl", "two_views", "sup_con")):
            assert_same(lambda a, b, t, make=make: make(t)(a, b), plain, (a, b, t))


def test_features_of_any_length():
    """Logits of 1e7: the weights are a softmax's, one at most."""
    a, b, queue = 3000 * torch.randn(90, 32), 3000 * torch.randn(90, 32), torch.randn(32, 50)
    forms = [
        (lambda a, b: open_clip.ClipLoss()(a, b, 1.0), lambda a, b: clip(a, b, 1.0, 0.0)),
        (
            lambda a, b: solo.mocov2plus_loss_func(a, b, 3000 * queue, 0.1),
            lambda a, b: _moco(a, b, 3000 * queue.to(a), 0.1),
        ),
    ]
    for ours, plain in forms:
        results = []
        for form, dtype in ((ours, torch.float32), (plain, torch.float64)):
            x = [t.to(dtype).requires_grad_() for t in (a, b)]
            value = form(*x)
            results.append([value.detach(), *torch.autograd.grad(value, x)])
        for x, y in zip(*results, strict=True):
            assert (x - y).abs().max() <= 1e-6 * y.abs().max()
