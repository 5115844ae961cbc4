"""Streaming neighbours equal to a full sort, ties included, in little memory; retrieval figures."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fastcl.evaluate import knn_predict, nearest, retrieve


def sorted_neighbours(query, bank, k):
    values, rows = (query @ bank.T).sort(dim=1, descending=True, stable=True)
    return values[:, :k], rows[:, :k]


@given(st.data())
def test_nearest_equals_the_full_sort_with_ties(data):
    """Small integers: every product is exact, and most similarities occur many times."""
    n, m = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 60))
    k, block = data.draw(st.integers(1, m)), data.draw(st.integers(1, 70))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    dtype = data.draw(st.sampled_from((torch.float32, torch.float64, torch.bfloat16)))
    query, bank = (torch.randint(-1, 2, (rows, 3)).to(dtype) for rows in (n, m))
    values, rows = nearest(query, bank, k, block)
    expected_values, expected_rows = sorted_neighbours(query, bank, k)
    assert torch.equal(values, expected_values) and torch.equal(rows, expected_rows)
    assert values.dtype == dtype


def test_equal_rows_come_in_their_order():
    values, rows = nearest(torch.ones(3, 4), torch.ones(100, 4), 10, 16)
    assert torch.equal(rows, torch.arange(10).expand(3, 10)) and (values == 4).all()


def test_plain_topk_would_fail_on_ties():
    """The negative control: `topk` alone takes equals in any order."""
    query, bank = torch.ones(1, 1), torch.ones(500, 1)
    order = (query @ bank.T).topk(20).indices
    assert not torch.equal(order, sorted_neighbours(query, bank, 20)[1])


class LargestTensor(TorchDispatchMode):
    """The most elements of any tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


def test_no_operation_returns_more_than_a_block():
    query, bank = torch.randn(400, 4), torch.randn(700, 4)
    with LargestTensor() as whole:
        (query @ bank.T).topk(5)
    assert whole.elements == 400 * 700
    with LargestTensor() as streamed:
        nearest(query, bank, 5, 64)
    assert streamed.elements <= 64 * 64
    many = torch.randn(5000, 4)
    with LargestTensor() as vote:
        knn_predict(query, many, torch.arange(5000) % 3, k=5)
    assert vote.elements <= 400 * 2048


@pytest.mark.slow
def test_memory_of_a_vote_among_many():
    """The matrix of 20,000 x 20,000 similarities would be 1.6 GB; 16 MB tiles suffice."""
    script = """
import resource, torch
from fastcl.evaluate import knn_predict
x, labels = torch.randn(20_000, 16), torch.arange(20_000) % 10
knn_predict(x[:3000], x[:3000], labels[:3000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
knn_predict(x, x, labels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200  # MiB


def plain_retrieval(query, query_labels, gallery, gallery_labels, k):
    """Precision, recall and hit rate, query by query."""
    precision, recall, hit = [], [], []
    for x, label in zip(query.double(), query_labels, strict=True):
        cosine = torch.nn.functional.cosine_similarity(x, gallery.double(), dim=1)
        found = gallery_labels[cosine.argsort(descending=True)[:k]] == label
        precision.append(found.sum().item() / k)
        hit.append(float(found.any()))
        relevant = (gallery_labels == label).sum().item()
        if relevant:
            recall.append(found.sum().item() / relevant)
    return tuple(sum(x) / max(1, len(x)) for x in (precision, recall, hit))


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 1000), st.data())
def test_retrieval_equals_the_formula(n, m, seed, data):
    torch.manual_seed(seed)
    k = data.draw(st.integers(1, m))
    query, gallery = torch.randn(n, 5), torch.randn(m, 5)
    labels = torch.randint(0, 6, (n,)), torch.randint(0, 4, (m,))  # some the gallery lacks
    found = retrieve(query, labels[0], gallery, labels[1], k=k)
    expected = plain_retrieval(query, labels[0], gallery, labels[1], k)
    assert (found.precision, found.recall, found.hit_rate) == pytest.approx(expected)
    assert found.precision <= found.hit_rate


def test_retrieval_of_known_sets():
    x, labels = torch.eye(3).repeat_interleave(4, 0), torch.arange(3).repeat_interleave(4)
    perfect = retrieve(x, labels, x, labels, k=4)
    assert (perfect.precision, perfect.recall, perfect.hit_rate) == (1, 1, 1)
    assert retrieve(x, labels + 3, x, labels, k=4).hit_rate == 0
    everything = retrieve(x, labels, x, labels, k=12)
    assert everything.recall == 1 and everything.precision == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be from 1 to the 7 rows"),
        (
            {"query_labels": torch.zeros(3).long()},
            ValueError,
            r"query_labels must have shape \[5\]",
        ),
        ({"gallery_labels": torch.zeros(7)}, TypeError, "gallery_labels must be int64"),
        ({"query": torch.randn(5, 3)}, ValueError, "query must have the width of gallery, 2"),
    ],
)
def test_bad_input_is_named(change, error, message):
    given = {
        "query": torch.randn(5, 2), "query_labels": torch.zeros(5).long(),
        "gallery": torch.randn(7, 2), "gallery_labels": torch.zeros(7).long(), "k": 2,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        retrieve(**(given | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"k": 0}, "k must be 1 or more"), ({"temperature": 0.0}, "temperature must be finite")],
)
def test_bad_votes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        knn_predict(torch.randn(3, 2), torch.randn(4, 2), torch.zeros(4).long(), **change)
