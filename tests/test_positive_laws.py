"""Laws of the general contrast and of the losses that are made of it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from positive_draws import SEEDS, arguments, normal, uniform

import fastcl.functional as F

ROWS = st.integers(2, 30)
TEMPERATURES = st.floats(0.05, 2.0)
close = torch.testing.assert_close


def drawn(n, seed, d=6):
    torch.manual_seed(seed)
    return normal(n, d), normal(n, d)


@given(n=ROWS, seed=SEEDS, positives=st.sampled_from(("mean", "sum")), both=st.booleans())
def test_labels_are_one_hot_targets_are_pairs(n, seed, positives, both):
    q, k = drawn(n, seed)
    rows, columns = torch.randint(0, 4, (2, n))
    rows[0] = columns[0]
    one_hot = tuple(torch.nn.functional.one_hot(x, 4).double() for x in (rows, columns))
    pairs = (*torch.where(rows[:, None] == columns), None)
    options = {"positives": positives, "both": both}
    expected = F.contrast(q, k, labels=(rows, columns), **options)
    close(F.contrast(q, k, targets=one_hot, **options), expected)
    close(F.contrast(q, k, pairs=pairs, **options), expected)


@given(n=ROWS, seed=SEEDS)
def test_the_own_column_is_a_label_of_its_own(n, seed):
    q, k = drawn(n, seed)
    ids = torch.randperm(n)
    close(F.contrast(q, k, labels=(ids, ids)), F.contrast(q, k))
    close(F.contrast(q, k), F.info_nce(q, k))
    close(F.contrast(q, k, targets=(torch.eye(n),) * 2), F.info_nce(q, k))
    close(F.contrast(q, k, both=True, temperature=0.2), F.clip(q, k, 5.0))
    z, twice = torch.cat([q, k]), torch.arange(n).repeat(2)
    close(F.contrast(z, labels=twice, temperature=0.5), F.nt_xent(q, k))


@given(n=ROWS, seed=SEEDS)
def test_a_weight_of_two_is_the_row_twice(n, seed):
    q, k = drawn(n, seed)
    weight = torch.randint(0, 3, (n,))
    labels = torch.randint(0, 3, (n,))
    labels = labels, labels[torch.randperm(n)]
    loss = F.contrast(q, k, labels=labels, row_weight=weight.double(), reduction="sum")
    twice = [x.repeat_interleave(weight, 0) for x in (q, labels[0])]
    if weight.any():
        more = F.contrast(twice[0], k, labels=(twice[1], labels[1]), reduction="sum")
        close(loss, more)


@given(n=ROWS, seed=SEEDS)
def test_a_bias_of_log_two_is_the_column_twice(n, seed):
    q, k = drawn(n, seed)
    labels, times = torch.randint(0, 3, (2, n)), torch.randint(1, 4, (n,))
    loss = F.contrast(q, k, labels=(labels[0], labels[1]), column_bias=times.double().log(),
                      positives="sum")  # fmt: skip
    twice = [x.repeat_interleave(times, 0) for x in (k, labels[1])]
    close(loss, F.contrast(q, twice[0], labels=(labels[0], twice[1]), positives="sum"))


def _taken(name: str, value, rows, columns, itself: bool):
    """An option with rows and columns in another order."""
    if name in ("labels", "targets", "guide"):
        return value[rows] if itself else (value[0][rows], value[1][columns])
    if name == "row_weight" or (name == "temperature" and getattr(value, "ndim", 0)):
        return value[rows]
    return value[columns] if name == "column_bias" else value


@given(problem=arguments())
def test_the_order_of_rows_and_columns_does_not_matter(problem):
    q, k, options = problem
    itself, expected = k is None, F.contrast(q, k, **options)
    rows = torch.randperm(len(q))
    columns = rows if itself or not {"labels", "targets", "pairs"} & {*options} else (
        torch.randperm(len(k)))  # fmt: skip
    moved = {name: _taken(name, x, rows, columns, itself) for name, x in options.items()
             if x is not None}  # fmt: skip
    if "pairs" in options:
        row, column, weight = options["pairs"]
        moved["pairs"] = rows.argsort()[row], columns.argsort()[column], weight
    if options.get("reduction") == "none" and not options["both"]:
        expected = expected[rows]
    elif options.get("reduction") == "none":
        moved["reduction"], expected = "sum", expected.sum()
        if not torch.equal(rows, columns):  # row i and column i share a loss, and a weight
            moved.pop("row_weight", None)
            plain = {x: y for x, y in options.items() if x not in ("row_weight", "reduction")}
            expected = F.contrast(q, k, **plain, reduction="sum")
    elif options["both"] and "row_weight" in options and not torch.equal(rows, columns):
        return
    close(F.contrast(q[rows], None if itself else k[columns], **moved), expected)


@given(n=ROWS, seed=SEEDS)
def test_the_order_of_levels_does_not_matter_and_a_share_of_zero_leaves_one_out(n, seed):
    q, k = drawn(n, seed)
    labels = torch.randint(0, 3, (n, 2)), torch.randint(0, 3, (n, 2))
    turned = tuple(x.flip(1) for x in labels)
    shares = uniform(2)
    loss = F.contrast(q, k, labels=labels, level_weights=shares)
    close(F.contrast(q, k, labels=turned, level_weights=shares.flip(0)), loss)
    first = F.contrast(q, k, labels=labels, level_weights=torch.tensor([1.0, 0.0]))
    close(first, F.contrast(q, k, labels=tuple(x[:, 0] for x in labels)))
    only = tuple(x[:, :1] for x in labels)
    close(F.contrast(q, k, labels=only, level_weights=shares[:1]), shares[0] * first)


@given(problem=arguments(), constant=st.floats(-30, 30))
def test_a_constant_bias_changes_nothing(problem, constant):
    q, k, options = problem
    m = len(q if k is None else k)
    bias = options.pop("column_bias", torch.zeros(m, dtype=torch.float64))
    losses = [F.contrast(q, k, column_bias=bias + more, **options) for more in (0.0, constant)]
    close(*losses, rtol=1e-9, atol=1e-9)


@given(n=ROWS, seed=SEEDS, both=st.booleans(), margin=st.floats(0, 0.5))
def test_margins_and_guides(n, seed, both, margin):
    q, k = drawn(n, seed)
    options = {"both": both, "temperature": 0.3}
    close(F.contrast(q, k, margin=2.0, **options), F.contrast(q, k, **options))
    loss = F.contrast(q, k, margin=margin, **options)
    close(F.contrast(q, k, margin=margin, guide=(q, k), **options), loss)
    close(F.contrast(q, k, guide=(3 * q, k), **options), F.contrast(q, k, margin=0.0, **options))
    pairs = torch.arange(n), torch.arange(n), None
    close(F.contrast(q, k, pairs=pairs, margin=margin, **options), loss)


@given(n=ROWS, seed=SEEDS, margin=st.floats(-0.2, 0.5))
def test_false_negatives_are_counted(n, seed, margin):
    q, k = drawn(n, seed)
    s = F.unit_rows(q) @ F.unit_rows(k).T
    above = (s > s.diagonal()[:, None] + margin).fill_diagonal_(False)
    assert torch.equal(F.false_negatives(q, k, margin=margin), above.sum(1))
    guided = F.false_negatives(k, q, margin=margin, guide=(2 * q, k))
    assert torch.equal(guided, above.sum(1))


@given(n=ROWS, seed=SEEDS, temperature=TEMPERATURES)
def test_sum_and_mean_of_one_positive_agree(n, seed, temperature):
    q, k = drawn(n, seed)
    order = torch.randperm(n)
    pairs = torch.arange(n), order, None
    losses = [
        F.contrast(q, k, pairs=pairs, positives=way, temperature=temperature)
        for way in ("mean", "sum")
    ]
    close(*losses)
    close(F.contrast(q, k, pairs=(pairs[0], order, 3 * torch.ones(n))), F.contrast(q, k[order]))


@given(n=ROWS, seed=SEEDS, smoothing=st.floats(0, 1), both=st.booleans())
def test_label_smoothing_is_that_of_cross_entropy(n, seed, smoothing, both):
    q, k = drawn(n, seed)
    s, own = F.unit_rows(q) @ F.unit_rows(k).T / 0.1, torch.arange(n)
    directions = [s, s.T] if both else [s]
    expected = sum(
        torch.nn.functional.cross_entropy(x, own, label_smoothing=smoothing) for x in directions
    ) / len(directions)
    close(F.contrast(q, k, label_smoothing=smoothing, both=both), expected)


def test_the_temperature_has_the_derivative_of_the_value():
    q, k = drawn(7, 0)
    labels = torch.randint(0, 3, (7,))
    for t in (torch.tensor(0.3), torch.tensor([0.3]), uniform(7) + 0.2):
        t = t.double().requires_grad_()
        for options in (
            {}, {"both": True}, {"labels": (labels, labels)}, {"margin": 0.1},
            {"positives": "sum", "targets": (uniform(7, 2), uniform(7, 2))},
        ):  # fmt: skip
            assert torch.autograd.gradcheck(
                lambda x, options=options: F.contrast(q, k, temperature=x, **options), [t]
            )


def test_a_row_without_a_positive_counts_as_zero():
    q, k = (x.requires_grad_() for x in drawn(6, 0))
    rows, columns = torch.tensor([0, 1, 9, 1, 0, 9]), torch.tensor([0, 1, 1, 0, 2, 3])
    for way in ("mean", "sum"):
        options = {"labels": (rows, columns), "positives": way}
        loss = F.contrast(q, k, **options, reduction="none")
        assert loss[[2, 5]].tolist() == [0, 0] and (loss[[0, 1, 3, 4]] > 0).all()
        close(F.contrast(q, k, **options), loss.sum() / 6)
        (dq,) = torch.autograd.grad(loss.sum(), q)
        assert dq[[2, 5]].abs().max() == 0 and (dq[[0, 1, 3, 4]] != 0).any(1).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_of_weight_zero_takes_no_part_whatever_it_holds(bad, reduction):
    q, k = drawn(6, 0)
    weight = torch.tensor([1, 0, 1, 2, 1, 1.0])
    clean = F.contrast(q, k, row_weight=weight, reduction=reduction)
    poisoned = q.clone()
    poisoned[1] = bad
    for options in ({}, {"labels": (torch.arange(6),) * 2}, {"margin": 2.0},
                    {"pairs": (torch.arange(6),) * 2}):  # fmt: skip
        x = poisoned.clone().requires_grad_()
        loss = F.contrast(x, k, row_weight=weight, reduction=reduction, **options)
        close(loss.detach(), clean)
        loss.sum().backward()
        assert x.grad[[0, 2, 3, 4, 5]].isfinite().all(), options


@given(n=ROWS, seed=SEEDS, temperature=TEMPERATURES)
def test_debiased_and_hcl_at_zero(n, seed, temperature):
    a, b = drawn(n, seed)
    nt_xent = F.nt_xent(a, b, temperature=temperature)
    close(F.debiased(a, b, temperature=temperature, tau_plus=0.0), nt_xent)
    for tau in (0.0, 0.2):
        options = {"temperature": temperature, "tau_plus": tau}
        close(F.hcl(a, b, beta=0.0, **options), F.debiased(a, b, **options))


@given(n=ROWS, seed=SEEDS)
def test_debiased_is_its_formula(n, seed):
    """As the docstring has it, where exponentials do not overflow."""
    a, b = drawn(n, seed)
    z, index = F.unit_rows(a, b), torch.arange(2 * n)
    s = z @ z.T / 0.5
    negatives = s[(index[:, None] % n) != index % n].view(2 * n, -1).exp()
    pos, count = s[index, index.roll(n)].exp(), 2 * n - 2
    for beta in (0.0, 1.0):
        weight = negatives**beta
        hard = (weight * negatives).sum(1) / weight.mean(1)
        g = ((hard - 0.1 * count * pos) / 0.9).clamp(min=count * math.exp(-2))
        close(F.hcl(a, b, beta=beta), -(pos / (pos + g)).log().mean())


@given(n=ROWS, seed=SEEDS, temperature=TEMPERATURES)
def test_rince_towards_zero_has_the_gradient_of_nt_xent(n, seed, temperature):
    a, b = (x.requires_grad_() for x in drawn(n, seed))
    options = {"temperature": temperature}
    grads = [
        torch.autograd.grad(loss, (a, b))
        for loss in (F.rince(a, b, q=1e-6, lam=0.5, **options), F.nt_xent(a, b, **options))
    ]
    close(*grads, rtol=1e-3, atol=1e-4)


@given(n=ROWS, seed=SEEDS, temperature=TEMPERATURES)
def test_each_is_info_nce_where_it_has_nothing_of_its_own(n, seed, temperature):
    a, b = drawn(n, seed)
    expected = F.info_nce(a, b, temperature=temperature)
    close(F.matryoshka(a, b, widths=[6], temperature=temperature), expected)
    close(F.mil_nce(a, b[:, None], temperature=temperature), expected)
    off = {"query_query": False, "document_document": False}
    close(F.retrieval(a, b, temperature=temperature, **off), expected)
    hard = normal(n, 2, 6)
    more = F.retrieval(a, b, hard, temperature=temperature, **off)
    s = torch.cat([F.unit_rows(a) @ F.unit_rows(b).T,
                   torch.einsum("nd,nhd->nh", F.unit_rows(a), hard / hard.norm(dim=2)[..., None])],
                  1) / temperature  # fmt: skip
    close(more, torch.nn.functional.cross_entropy(s, torch.arange(n)))
