"""The general contrast where rounding decides: ties, a row alone, long logits, 16 bits."""

import pytest
import torch
from positive_draws import normal

import fastcl.functional as F

close = torch.testing.assert_close


def drawn(n, seed, d=6):
    torch.manual_seed(seed)
    return normal(n, d), normal(n, d)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_same_column_twice_is_no_false_negative(dtype):
    """Of a guide, and of the rows, whose cosines are those of the positive up to rounding."""
    query, key = torch.randn(40, 96).to(dtype), torch.randn(20, 96).to(dtype).repeat(2, 1)
    s = F.unit_rows(query.double()) @ F.unit_rows(key.double()).T
    above = (s > s.diagonal()[:, None] + 1e-7).sum(1)
    rows = torch.randn(2, 40, 8)
    guide = query, key
    assert torch.equal(F.false_negatives(*rows, guide=guide), above)
    inside = torch.where(s > s.diagonal()[:, None] + 1e-7, -torch.inf, 0)
    logits = F.unit_rows(rows[0]) @ F.unit_rows(rows[1]).T / 0.1 + inside
    want = torch.nn.functional.cross_entropy(logits.float(), torch.arange(40))
    for pairs in (None, (torch.arange(40), torch.arange(40))):
        torch.testing.assert_close(F.contrast(*rows, pairs=pairs, guide=guide), want)


@pytest.mark.parametrize("pairs", [None, (torch.arange(5), torch.arange(5))])
def test_a_guide_that_is_trained_receives_nothing(pairs):
    query, key, guide = (x.requires_grad_() for x in torch.randn(3, 5, 8))
    loss = F.contrast(query, key, pairs=pairs, guide=(guide, guide))
    *found, nothing = torch.autograd.grad(loss, [query, key, guide], allow_unused=True)
    assert all((x != 0).any() for x in found) and (nothing is None or not nothing.any())


@pytest.mark.parametrize("bias", [None, torch.ones(1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_row_alone_has_no_loss(bias, smoothing, reduction):
    x, shares = torch.randn(1, 4).requires_grad_(), torch.ones(2).requires_grad_()
    options = {"column_bias": bias, "label_smoothing": smoothing, "reduction": reduction}
    for positives in (
        {"labels": torch.zeros(1).long()}, {"pairs": (torch.zeros(1).long(),) * 2},
        {"labels": torch.zeros(1, 2).long(), "level_weights": shares},
    ):  # fmt: skip
        loss = F.contrast(x, **positives, **options).sum()
        for grad in (loss, *torch.autograd.grad(loss, [x, shares], allow_unused=True)):
            assert grad is None or (grad == 0).all()


def test_losses_of_many_logits_keep_the_digits_of_float64():
    """Of 20 and more, where exp(-loss) is a rounding of float32."""
    q = F.unit_rows(drawn(4, 0)[0])
    k, t = -q + 0.01 * q.roll(1, 0), 0.05
    loss, ids = F.info_nce(q, k, temperature=t), torch.arange(4)
    options = {"query_query": False, "document_document": False}
    # Forty-five roundings of float64, where what was lost is 1e-9.
    close(F.retrieval(q, k, temperature=t, **options), loss, rtol=1e-14, atol=0)
    close(F.mil_nce(q, k[:, None], temperature=t), loss, rtol=1e-14, atol=0)
    summed = F.contrast(
        q, k, labels=(ids, ids), positives="sum", temperature=t, column_bias=torch.zeros(4)
    )
    close(summed, loss, rtol=1e-14, atol=0)


@pytest.mark.parametrize("size", [(), (6,)])
def test_a_temperature_of_16_bits_is_not_rounded_again(size):
    t = torch.full(size, 0.1, dtype=torch.bfloat16)
    q, k = (x.float() for x in drawn(6, 0))
    close(F.contrast(q, k, temperature=t), F.contrast(q, k, temperature=t.float()))
    close(F.info_nce(q, k, temperature=t.max()), F.info_nce(q, k, temperature=t.max().item()))


@pytest.mark.parametrize("kind", ["labels", "targets", "pairs"])
@pytest.mark.parametrize("positives", ["mean", "sum"])
def test_the_sum_of_both_directions_is_one_of_the_rows(kind, positives):
    """Of fewer rows than columns: as many times their mean as there are rows."""
    q, k = normal(5, 4), normal(7, 4)
    given = {
        "labels": (torch.arange(5) % 3, torch.arange(7) % 3),
        "targets": (torch.rand(5, 3).double(), torch.rand(7, 3).double()),
        "pairs": (torch.arange(5), torch.arange(5).flip(0)),
    }  # fmt: skip
    options = {kind: given[kind], "both": True, "positives": positives}
    mean, total = (F.contrast(q, k, reduction=x, **options) for x in ("mean", "sum"))
    close(total, 5 * mean)
