"""PyLate's contrastive losses in fastcl.compat beside the library's own."""

from functools import partial

import late_interaction
import numpy as np
import pytest
import torch
from gloo import spawn
from late_interaction import (
    assert_equal,
    assert_equal_without_gradients,
    assert_kernel_runs,
    gradients,
)
from peers import both, peer
from torch import nn

ours, theirs = both("pylate")
scores = peer("pylate.scores")

NAMES = ("Contrastive", "CachedContrastive")
PUNCTUATION = [3, 7, 11]  # words that documents leave out


class Encoder(nn.Module):
    """A ColBERT model as the losses call it."""

    skiplist = PUNCTUATION

    def __init__(self, expansion=True):
        super().__init__()
        torch.manual_seed(1)
        self.words, self.do_query_expansion = nn.Embedding(20, 8), expansion

    def forward(self, features):
        return {"token_embeddings": self.words(features["input_ids"])}


features = partial(late_interaction.features, words=20)


def run(module, name, columns, model=None, **options):
    """The loss and the gradient of the embedding."""
    model = model or Encoder()
    if name == "CachedContrastive":
        options = {"mini_batch_size": 4, **options}
    return gradients(getattr(module, name)(model, **options), model, columns)


def check(name, columns, make=Encoder, **options):
    assert_equal(*(run(module, name, columns, make(), **options) for module in (ours, theirs)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [(4, 9), (5, 7, 7), (3, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("average", [True, False])
def test_equal_to_the_library(name, lengths, temperature, average):
    check(name, features(*lengths), temperature=temperature, size_average=average)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("empty", [False, True])
def test_queries_without_expansion(name, empty):
    """Their masks count, and one may leave nothing of a query or of a document."""
    columns = features(4, 9, 9, empty=empty)
    check(name, columns, lambda: Encoder(expansion=False))
    with_expansion, without = (
        run(ours, name, columns, Encoder(expansion))[0] for expansion in (True, False)
    )
    assert abs(with_expansion - without) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_scores_nothing(name):
    """And is the best where every token that counts scores less."""
    columns = features(2, 6, 6)
    opposite = Encoder()
    with torch.no_grad():
        opposite.words.weight[:10] = -opposite.words.weight[10:].abs()
        opposite.words.weight[10:].abs_()
    columns[0]["input_ids"] = columns[0]["input_ids"] % 10 + 10
    for column in columns[1:]:
        column["input_ids"] %= 10
    state = opposite.state_dict()

    def make():
        model = Encoder()
        model.load_state_dict(state)
        return model

    check(name, columns, make)


class Wrapped(nn.Module):
    """As a model is for several devices: without its attributes."""

    def __init__(self):
        super().__init__()
        self.module = Encoder()

    def forward(self, features):
        return self.module(features)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapped_model(name):
    check(name, features(4, 9), Wrapped)


@pytest.mark.parametrize("name", NAMES)
def test_other_scores_are_the_librarys(name):
    check(name, features(4, 9, 9), score_metric=scores.XTRScores(k=9))


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_a_temperature_is_the_librarys(name):
    found = []
    for module in (ours, theirs):
        temperature = torch.tensor(0.5, requires_grad=True)
        run(module, name, features(4, 9), temperature=temperature)
        found.append(temperature.grad)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [-0.5, float("inf"), np.float32(0.5)])
def test_no_positive_number_of_python_is_the_librarys(name, temperature):
    check(name, features(4, 9), temperature=temperature)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_documents_than_queries_are_named(name):
    """There they are an IndexError; of several columns no positive may be another's hard one."""
    query, *documents = features(4, 9, 9)
    few = [{k: x[:3] for k, x in document.items()} for document in documents]
    with pytest.raises(ValueError, match=r"must have 6 rows at least, got \[3, 3\]"):
        run(ours, name, [query, *few])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_dtype_of_the_result(name, dtype):
    results = [
        run(module, name, features(4, 9), Encoder().to(dtype))[0] for module in (ours, theirs)
    ]
    torch.testing.assert_close(*results, rtol=2e-2 if dtype == torch.bfloat16 else 1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name):
    with torch.autocast("cpu", torch.bfloat16):
        results = [run(module, name, features(4, 9))[0] for module in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=2e-2, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_runs(name, monkeypatch):
    assert_kernel_runs(ours, monkeypatch, lambda: run(ours, name, features(4, 9)))


def test_no_gradient_is_asked_for():
    losses = [m.CachedContrastive(Encoder()) for m in (ours, theirs)]
    assert_equal_without_gradients(losses, features(4, 9))


def check_ranks(rank: int) -> None:
    """Documents of all ranks."""
    columns = [{k: x.roll(rank, 0) for k, x in column.items()} for column in features(4, 6, 6)]
    for name in NAMES:
        check(name, columns, temperature=0.5, gather_across_devices=True)
    alone = run(ours, NAMES[0], columns)[0]
    assert abs(2 * alone - run(ours, NAMES[0], columns, gather_across_devices=True)[0]) > 1e-3


def test_two_ranks(tmp_path):
    spawn(check_ranks, 2, tmp_path)
