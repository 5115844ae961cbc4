"""Laws that hold for any input, by hypothesis."""

import math

import pytest
import torch
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcl.functional as F

ROWS = st.integers(2, 40)
WIDTHS = st.integers(1, 24)
SEEDS = st.integers(0, 2**31 - 1)
TEMPERATURES = st.floats(0.01, 2.0)


def views(n, d, seed):
    torch.manual_seed(seed)
    return torch.randn(2, n, d, dtype=torch.float64).unbind()


TWO_VIEWS = {"info_nce": F.info_nce, "nt_xent": F.nt_xent, "dcl": F.dcl, "flat_nce": F.flat_nce}


@pytest.mark.parametrize("loss", TWO_VIEWS.values(), ids=TWO_VIEWS)
@given(n=ROWS, d=WIDTHS, seed=SEEDS, temperature=TEMPERATURES)
def test_order_of_pairs_does_not_matter(loss, n, d, seed, temperature):
    a, b = views(n, d, seed)
    order = torch.randperm(n)
    expected = loss(a, b, temperature=temperature)
    torch.testing.assert_close(loss(a[order], b[order], temperature=temperature), expected)


@pytest.mark.parametrize("loss", TWO_VIEWS.values(), ids=TWO_VIEWS)
@given(n=ROWS, d=WIDTHS, seed=SEEDS)
def test_length_of_rows_does_not_matter(loss, n, d, seed):
    a, b = views(n, d, seed)
    lengths = 0.1 + 10 * torch.rand(n, 1, dtype=torch.float64)
    torch.testing.assert_close(loss(a * lengths, b / lengths), loss(a, b))


@given(n=ROWS, d=WIDTHS, seed=SEEDS, temperature=TEMPERATURES)
def test_equal_logits_give_log_of_their_number(n, d, seed, temperature):
    row = views(1, d, seed)[0].expand(n, d)

    def close(value, number):
        return math.isclose(value.item(), math.log(number), rel_tol=1e-12, abs_tol=1e-12)

    assert close(F.info_nce(row, row, temperature=temperature), n)
    assert close(F.clip(row, row, 1 / temperature), n)
    assert close(F.nt_xent(row, row, temperature=temperature), 2 * n - 1)
    assert close(F.flat_nce(row, row, temperature=temperature), 2 * n - 1)
    assert close(F.dcl(row, row, temperature=temperature), 2 * n - 2)
    labels = torch.zeros(n, dtype=torch.int64)
    assert close(F.sup_con(row, labels, temperature=temperature), n - 1)
    queue = F.unit_rows(row)
    assert close(F.moco(row, row, queue, temperature=temperature), n + 1)


@given(n=ROWS, d=WIDTHS, seed=SEEDS, temperature=TEMPERATURES)
def test_clip_is_the_mean_of_both_directions(n, d, seed, temperature):
    a, b = views(n, d, seed)
    loss = F.clip(a, b, 1 / temperature)
    torch.testing.assert_close(loss, F.clip(b, a, 1 / temperature))
    halves = [F.info_nce(*pair, temperature=temperature) for pair in ((a, b), (b, a))]
    torch.testing.assert_close(loss, sum(halves) / 2)


@given(n=ROWS, d=WIDTHS, seed=SEEDS, temperature=TEMPERATURES)
def test_views_are_interchangeable(n, d, seed, temperature):
    a, b = views(n, d, seed)
    for loss in (F.nt_xent, F.dcl, F.flat_nce):
        expected = loss(a, b, temperature=temperature)
        torch.testing.assert_close(loss(b, a, temperature=temperature), expected)


@given(n=ROWS, d=WIDTHS, seed=SEEDS, temperature=TEMPERATURES)
def test_sup_con_of_two_views_is_nt_xent(n, d, seed, temperature):
    a, b = views(n, d, seed)
    labels = torch.arange(n).repeat(2)
    sup_con = F.sup_con(torch.cat([a, b]), labels, temperature=temperature)
    torch.testing.assert_close(sup_con, F.nt_xent(a, b, temperature=temperature))


@given(n=ROWS, d=WIDTHS, seed=SEEDS, temperature=TEMPERATURES)
def test_moco_is_info_nce_with_negatives(n, d, seed, temperature):
    a, b = views(n, d, seed)
    queue = F.unit_rows(torch.randn(17, d, dtype=torch.float64))
    moco = F.moco(a, b, queue, temperature=temperature)
    torch.testing.assert_close(moco, F.info_nce(a, b, queue, temperature=temperature))


@given(n=ROWS, d=WIDTHS, seed=SEEDS)
def test_a_duplicate_pair_with_its_own_id_is_no_negative(n, d, seed):
    """With ids, a batch of twice the same pairs costs what one batch costs, plus log 2 apart."""
    a, b = views(n, d, seed)
    twice = [torch.cat([x, x]) for x in (a, b)]
    ids = torch.arange(n).repeat(2)
    loss = F.clip(*twice, 10.0, ids=ids)
    torch.testing.assert_close(loss, F.clip(a, b, 10.0) + math.log(2))


@settings(max_examples=min(8, settings.default.max_examples))
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@given(n=ROWS, d=WIDTHS, seed=SEEDS)
def test_gradients_are_orthogonal_to_their_rows(case, n, d, seed):
    """Length does not matter, so moving along a row changes nothing."""
    if not case.any_length:
        pytest.skip("it does not normalise its rows")
    torch.manual_seed(seed)
    tensors, kwargs = case.arguments(max(n, case.smallest), d, 0.2)
    names = [
        k for k, x in tensors.items()
        if x.is_floating_point() and x.dim() > 1 and k not in case.constants
    ]  # fmt: skip
    for k in names:
        tensors[k].requires_grad_()
    case.function(**tensors, **kwargs).backward()
    for k in names:
        along = (tensors[k] * tensors[k].grad).sum(-1)
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)
