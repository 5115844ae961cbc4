"""Duplicates by id: positives of each other, or left out."""

import pytest
import torch

import fastcl.functional as F

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
