"""What bad input to max_sim gets: an error that names the argument, its value and what is
expected."""

import pytest
import torch

import fastcl.functional as F
from fastcl import losses

Q, D, H = torch.randn(2, 3, 4), torch.randn(3, 5, 4), torch.randn(2, 1, 6, 4)
QM, DM, HM = (torch.ones(x.shape[:-1], dtype=torch.bool) for x in (Q, D, H))


def without(mask, *item):
    mask = mask.clone()
    mask[item] = False
    return mask


BAD = {
    "rank of query": (
        lambda: F.max_sim(Q[0], D), ValueError, r"query must have 3 dimensions .*\[3, 4\]"
    ),
    "rank of document": (
        lambda: F.max_sim(Q, D[0]), ValueError, r"document must have 3 dimensions .*\[5, 4\]"
    ),
    "rank of hard": (
        lambda: F.max_sim(Q, D, hard=H[0]), ValueError, r"hard must have 4 dimensions .*\[1, 6, 4\]"
    ),
    "width": (
        lambda: F.max_sim(Q, D[..., :3]), ValueError,
        "document must have the width of query, 4, got 3"
    ),
    "width of hard": (
        lambda: F.max_sim(Q, D, hard=H[..., :2]), ValueError,
        "hard must have the width of query, 4, got 2"
    ),
    "fewer documents": (
        lambda: F.max_sim(Q, D[:1]), ValueError,
        "document must have as many items as query, 2, or more, got 1"
    ),
    "items of hard": (
        lambda: F.max_sim(Q, D, hard=H[:1]), ValueError,
        "hard must have as many items as query, 2, got 1"
    ),
    "no query": (lambda: F.max_sim(Q[:0], D), ValueError, "query must not be empty"),
    "no token": (lambda: F.max_sim(Q, D[:, :0]), ValueError, "document must not be empty"),
    "no hard": (lambda: F.max_sim(Q, D, hard=H[:, :0]), ValueError, "hard must not be empty"),
    "dtypes": (
        lambda: F.max_sim(Q, D.double()), TypeError,
        "document must have the dtype of query, torch.float32, got torch.float64"
    ),
    "integers": (lambda: F.max_sim(Q.long(), D.long()), TypeError, "query must be float16"),
    "devices": (
        lambda: F.max_sim(Q, D.to("meta")), ValueError, "document must be on the device of query"
    ),
    "length of a mask": (
        lambda: F.max_sim(Q, D, QM[:, :2]), ValueError,
        r"query_mask must have the shape of query's tokens, \[2, 3\], got \[2, 2\]"
    ),
    "another's mask": (
        lambda: F.max_sim(Q, D, QM, QM), ValueError,
        r"document_mask must have the shape of document's tokens, \[3, 5\], got \[2, 3\]"
    ),
    "mask of hard": (
        lambda: F.max_sim(Q, D, hard=H, hard_mask=HM[0]), ValueError,
        r"hard_mask must have the shape of hard's tokens, \[2, 1, 6\], got \[1, 6\]"
    ),
    "mask of no hard": (
        lambda: F.max_sim(Q, D, hard_mask=HM), ValueError, "hard_mask must be None where hard is"
    ),
    "mask of numbers": (
        lambda: F.max_sim(Q, D, QM.long()), TypeError, "query_mask must be bool, got torch.int64"
    ),
    "mask elsewhere": (
        lambda: F.max_sim(Q, D, QM.to("meta")), ValueError,
        "query_mask must be on the device of query, cpu, got meta"
    ),
    "a query without tokens": (
        lambda: F.max_sim(Q, D, without(QM, 1)), ValueError,
        r"query_mask must leave a token of every item of query, none left of \[1\]"
    ),
    "a document without tokens": (
        lambda: F.max_sim(Q, D, None, without(DM, 2)), ValueError,
        r"document_mask must leave a token of every item of document, none left of \[2\]"
    ),
    "a hard one without tokens": (
        lambda: F.max_sim(Q, D, hard=H, hard_mask=without(HM, 1, 0)), ValueError,
        r"hard_mask must leave a token of every item of hard, none left of \[1, 0\]"
    ),
    "temperature": (
        lambda: F.max_sim(Q, D, temperature=0.0), ValueError, "temperature must be .*above 0, got 0"
    ),
    "temperature of the module": (
        lambda: losses.MaxSim(-1.0), ValueError, "temperature must be .*above 0, got -1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_the_module_is_the_function():
    loss = losses.MaxSim(0.1, learned=True)
    value = loss(Q, D, QM, DM, H, HM)
    expected = F.max_sim(Q, D, QM, DM, H, HM, temperature=loss.current_temperature())
    assert torch.equal(value, expected)
    value.backward()
    assert loss.log_temperature.grad != 0
