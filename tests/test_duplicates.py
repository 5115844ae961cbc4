"""Duplicates by id: positives of each other, or left out."""

import pytest
import torch

import fastcl
import fastcl.functional as F
from fastcl import losses

IDS = torch.tensor([0, 1, 0, 2, 3, 1])


def logits(x, y, temperature=0.5):
    return F.unit_rows(x) @ F.unit_rows(y).T / temperature


def expected(s, own, same, duplicates, self_):
    """Minus the mean positive logit plus the log of the sum, by the definition."""
    s = s.masked_fill(self_, -torch.inf)
    if duplicates == "ignore":
        s = s.masked_fill(same & ~own, -torch.inf)
        same = own
    same = same & ~self_
    positive = torch.where(same, s, 0).sum(1) / same.sum(1)
    return (s.logsumexp(1) - positive).mean()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("duplicates", ["positive", "ignore"])
@pytest.mark.parametrize("form", ["info_nce", "nt_xent"])
def test_equal_the_definition(form, duplicates, normalize):
    x = [F.unit_rows(torch.randn(6, 4, dtype=torch.float64)).requires_grad_() for _ in "12"]
    options = {"temperature": 0.5, "ids": IDS, "duplicates": duplicates, "normalize": normalize}
    got = getattr(F, form)(*x, **options)
    if form == "info_nce":
        s, own, ids = logits(*x), torch.eye(6, dtype=torch.bool), IDS
        self_ = torch.zeros_like(own)
    else:
        z, ids = torch.cat(x), IDS.repeat(2)
        s, self_ = logits(z, z), torch.eye(12, dtype=torch.bool)
        own = self_.roll(6, 0)
    want = expected(s, own, ids[:, None] == ids, duplicates, self_)
    torch.testing.assert_close(got, want)
    if normalize:
        ours, plain = (torch.autograd.grad(v, x, retain_graph=True) for v in (got, want))
        torch.testing.assert_close(ours, plain)
    assert not torch.isclose(got, getattr(F, form)(*x, temperature=0.5))  # negative control


def test_bad_input():
    x = torch.randn(6, 4)
    with pytest.raises(ValueError, match="duplicates must be one of positive, ignore"):
        F.info_nce(x, x, ids=IDS, duplicates="drop")
    with pytest.raises(ValueError, match="ids must be None where negatives are given"):
        F.info_nce(x, x, x, ids=IDS)
    with pytest.raises(ValueError, match="ids must have shape"):
        F.nt_xent(x, x, ids=IDS[:3])
    for call in (
        lambda: F.clip(x, x, 1.0, duplicates="drop"),
        lambda: F.siglip(x, x, 1.0, 0.0, duplicates="drop"),
        lambda: F.moco(x, x, x, duplicates="drop"),
        lambda: F.sim_cse(x, x, x, duplicates="drop"),
        lambda: losses.CLIPLoss(duplicates="drop"),
        lambda: losses.MoCoLoss(duplicates="drop"),
    ):
        with pytest.raises(ValueError, match="duplicates must be one of positive, ignore"):
            call()
    with pytest.raises(ValueError, match="ids and queue_ids must both be given"):
        F.moco(x, x, x, ids=IDS)
    for ids in (IDS[:3], IDS[None]):
        for duplicates in ("positive", "ignore"):
            with pytest.raises(ValueError, match="ids of the rows must have shape"):
                F.siglip(x, x, 1.0, 0.0, ids=ids, duplicates=duplicates)


def test_an_ignored_key_may_leave_the_queue_before_the_backward():
    """And one that is a positive may not: the gradient would be of other keys."""
    query, queue = torch.randn(6, 4, requires_grad=True), fastcl.Queue(8, 4)
    options = {"ids": IDS, "queue_ids": torch.arange(8) % 4}
    loss = F.moco(query, query, queue(), **options, duplicates="ignore")
    queue.push(query)
    loss.backward()
    assert query.grad.isfinite().all()
    loss = F.moco(query, query, queue(), **options)
    queue.push(query)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("form", ["clip", "siglip", "moco", "sim_cse"])
def test_unit_rows_need_no_normalising(form):
    x, y, z = (F.unit_rows(torch.randn(6, 4, dtype=torch.float64)) for _ in "123")
    more = {"clip": (3.0,), "siglip": (3.0, -1.0), "moco": (z,), "sim_cse": (z,)}[form]
    options = {"ids": IDS, **({"queue_ids": IDS.flip(0)} if form == "moco" else {})}
    for duplicates in ("positive", "ignore"):
        values = [
            getattr(F, form)(x, y, *more, **options, duplicates=duplicates, normalize=normalize)
            for normalize in (True, False)
        ]
        torch.testing.assert_close(*values)


def test_without_duplicates_ids_change_nothing():
    x, y, z = torch.randn(3, 6, 4, dtype=torch.float64).unbind()
    apart = torch.tensor([7, -3, 2**40, 0, 5, 11])
    for function, more, options in (
        (F.clip, (3.0,), {}), (F.siglip, (3.0, -1.0), {}), (F.sim_cse, (z,), {"hard_weight": 0.7}),
        (F.moco, (F.unit_rows(z),), {"queue_ids": torch.full((6,), -1)}),
    ):  # fmt: skip
        plain = {k: v for k, v in options.items() if k != "queue_ids"}
        expected = function(x, y, *more, **plain)
        for duplicates in ("positive", "ignore"):
            ours = function(x, y, *more, ids=apart, duplicates=duplicates, **options)
            torch.testing.assert_close(ours, expected)
