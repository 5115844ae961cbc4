"""Every compiled operator: the same bits from any number of threads, and nothing of the size of its
inputs beside its outputs."""

import pytest
import torch
from contrasts import fields
from processors import built

from benchmarks.memory import growth
from fastcl._library import ops

pytestmark = built

LARGE = 1 << 15


def rows(n, d=128, seed=0):
    make = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=make))


def contrast(name, *rest):
    def make(n):
        p = fields(rows(n), rows(n, seed=1), scale=10.0, ids=(torch.arange(n), torch.arange(n)))
        return lambda: getattr(ops, name)(*p, *rest)

    return make


def soft_cross_entropy(n):
    scores, target = rows(n), rows(n, seed=1).softmax(1)
    return lambda: ops.soft_cross_entropy(scores, target, 10.0, 1.0, True)


def nce(n):
    x, bank, index = rows(n), rows(500), torch.arange(20 * n).view(n, 20) % 500
    return lambda: ops.nce(x, bank, index, 10.0, -2.0, None, None, True)


def in_place(name):
    """Functions that write into a tensor, which comes back."""

    def make(n):
        state, x, number = rows(n), rows(n, seed=1), torch.tensor(7)
        calls = {
            "queue_push_": lambda: ops.queue_push_(state, number, x, True),
            "bank_update_": lambda: ops.bank_update_(state, torch.arange(n) % 300, x, 0.5),
            "momentum_update_": lambda: ops.momentum_update_([state], [x], 0.9, None, None),
        }

        def call():
            calls[name]()
            return (state,)

        return call

    return make


def unit_rows(backward):
    def make(n):
        x, grad = 3 * rows(n), rows(n, seed=1)
        lengths = ops.unit_rows_forward([x])[1]
        return lambda: (
            (ops.unit_rows_backward(grad, [x], lengths),)
            if backward
            else ops.unit_rows_forward([x])
        )

    return make


def sinkhorn(name):
    def make(n):
        scores, potential = rows(n), torch.linspace(-1, 1, 128)
        more = {"sinkhorn": (None, 20.0, 3), "sinkhorn_columns": (20.0,)}
        rest = more.get(name, (20.0, potential))
        return lambda: (getattr(ops, name)(scores, *rest),)

    return make


def product(n):
    a, b = rows(n), rows(128, seed=1)
    return lambda: (ops.product(a, b, False, True),)


OPERATORS = {
    "sigmoid_contrast": contrast("sigmoid_contrast", -5.0, None, True, True),
    "contrast_mean": contrast("contrast_mean", True, True, False, True),
    "contrast_forward": contrast("contrast_forward", None, True, True),
    "nce": nce,
    "soft_cross_entropy": soft_cross_entropy,
    "unit_rows_forward": unit_rows(False),
    "unit_rows_backward": unit_rows(True),
    "product": product,
    **{name: in_place(name) for name in ("queue_push_", "bank_update_", "momentum_update_")},
    **{
        name: sinkhorn(name)
        for name in ("sinkhorn", "sinkhorn_columns", "sinkhorn_masses", "sinkhorn_assign")
    },
}


@pytest.mark.parametrize("n", [3, 1000])
@pytest.mark.parametrize("name", OPERATORS)
def test_same_bits_with_any_number_of_threads(name, n):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append([x.clone() for x in OPERATORS[name](n)()])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


# All pairs of the contrasts' rows would take minutes, and have tests of their own.
LINEAR = [name for name in OPERATORS if "contrast" not in name]


@pytest.mark.parametrize("name", LINEAR)
def test_nothing_beside_the_outputs(name):
    """16 MB of rows go in: a copy of them would show, and so would a megabyte."""
    OPERATORS[name](8)()
    call, kept = OPERATORS[name](LARGE), []
    extra = growth(lambda: kept.extend(call()))
    in_place = name in ("queue_push_", "bank_update_", "momentum_update_")
    assert extra - (0 if in_place else sum(x.nbytes for x in kept)) < 2**20


def test_a_copy_of_the_rows_is_noticed():
    """The control of the test above."""
    x = rows(LARGE)
    assert growth(lambda: x.clone()) > 2**20
