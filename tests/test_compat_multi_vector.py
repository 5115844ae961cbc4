"""sentence-transformers' multi-vector losses in fastcl.compat beside the library's own."""

import pytest
import torch
from gloo import spawn
from late_interaction import (
    assert_equal,
    assert_equal_without_gradients,
    assert_kernel_runs,
    features,
    gradients,
)
from peers import peer
from torch import nn

theirs = peer("sentence_transformers.multi_vector_encoder.losses")
ours = peer("fastcl.compat._sentences_multi_vector")
scoring = peer("sentence_transformers.multi_vector_encoder.scoring")

PLAIN = "MultiVectorMultipleNegativesRankingLoss"
NAMES = (PLAIN, f"Cached{PLAIN}")


class Encoder(nn.Module):
    """A multi-vector model as the losses call it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.words = nn.Embedding(50, 8)

    def forward(self, features, task=None):
        x = torch.nn.functional.normalize(self.words(features["input_ids"]), dim=-1)
        return {"token_embeddings": x, "attention_mask": features["attention_mask"]}


def run(module, name, columns, **options):
    """The loss and the gradient of the embedding."""
    model = Encoder()
    return gradients(getattr(module, name)(model, **options), model, columns)


def check(name, columns, **options):
    assert_equal(*(run(module, name, columns, **options) for module in (ours, theirs)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [(4, 9), (5, 7, 3), (3, 1, 2, 6)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_equal_to_the_library(name, lengths, scale):
    check(name, features(*lengths), scale=scale, mini_batch_size=4)


@pytest.mark.parametrize("name", NAMES)
def test_items_without_a_token(name):
    check(name, features(4, 9, 5, empty=True))


@pytest.mark.parametrize("name", NAMES)
def test_another_function_of_scores_is_the_librarys(name):
    check(name, features(4, 9), similarity_fct=scoring.mean_colbert_scores)


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_runs(name, monkeypatch):
    assert_kernel_runs(ours, monkeypatch, lambda: run(ours, name, features(4, 9)))


def test_no_gradient_is_asked_for():
    losses = [getattr(m, NAMES[1])(Encoder()) for m in (ours, theirs)]
    assert_equal_without_gradients(losses, features(4, 9))


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_other_lengths_are_named(name):
    query, document, hard = features(4, 9, 5)
    short = {k: x[:3] for k, x in document.items()}
    for columns, counts in (([query, short, hard], "3, 6"), ([query, short], "3")):
        with pytest.raises(ValueError, match=rf"must be as long, 6 at least, got \[{counts}\]"):
            getattr(ours, name)(Encoder())(columns)


def check_ranks(rank: int) -> None:
    """Documents of all ranks, padded to other lengths on each."""
    columns = features(4, 6 + rank, 3)
    for name in NAMES:
        check(name, columns, scale=5.0, gather_across_devices=True)
    alone = run(ours, PLAIN, columns, scale=5.0)[0]
    assert abs(alone - run(ours, PLAIN, columns, scale=5.0, gather_across_devices=True)[0]) > 1e-3


def test_two_ranks(tmp_path):
    spawn(check_ranks, 2, tmp_path)
