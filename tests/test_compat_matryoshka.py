"""Matryoshka wrappers of sentence-transformers over fastcl; the symmetric and sparse losses."""

import random
import warnings

import pytest
import torch
from peers import both, budgets, peer, rows
from test_compat_guided import Rows
from torch import nn

SYMMETRIC = "MultipleNegativesSymmetricRankingLoss", "CachedMultipleNegativesSymmetricRankingLoss"
WRAPPED = (
    "MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss", *SYMMETRIC,
    "GISTEmbedLoss", "CachedGISTEmbedLoss",
)  # fmt: skip


class Encoder(Rows):
    """One layer, whose gradient shows what reaches a model."""

    def __init__(self, key: str = "rows") -> None:
        super().__init__(key)
        torch.manual_seed(5)
        self.layer = nn.Linear(8, 8).double()

    def get_embedding_dimension(self) -> int:
        return 8

    def forward(self, features):
        features["sentence_embedding"] = self.layer(features[self.key])
        return features


def step(module, name, columns, wrap, model=None):
    """The loss of a step and the gradient to the model."""
    model = Encoder() if model is None else model
    more = (Encoder("guide").requires_grad_(False),) if "GIST" in name else ()
    cached = {"mini_batch_size": 4} if name.startswith("Cached") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loss = wrap(model, getattr(module, name)(model, *more, **cached))
    random.seed(0)  # of the dims of a step
    value = loss([dict(x) for x in columns], None)
    value.backward()
    return value.detach(), *(x.grad for x in model.parameters())


def columns_of(n: int, count: int = 2):
    torch.manual_seed(1)
    keys = ("rows", "guide", "input_ids")  # mini-batches are counted by the last
    return [dict(zip(keys, (*torch.randn(2, n, 8, dtype=torch.float64), torch.ones(n, 1)),
                     strict=True)) for _ in range(count)]  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("dims", [-1, 1])
def test_matryoshka(name, dims):
    """One step through the library's wrapper; a cached loss through its second encoding too."""
    ours, theirs = both("sentence_transformers")

    def wrap(model, loss):
        return theirs.MatryoshkaLoss(model, loss, [8, 5, 2], [1.0, 0.5, 0.25], n_dims_per_step=dims)

    results = [step(m, name, columns_of(6, 3), wrap) for m in (ours, theirs)]
    torch.testing.assert_close(*results)
    alone = step(ours, name, columns_of(6, 3), lambda model, loss: loss)
    assert abs(alone[0] - results[0][0]) > 1e-3  # negative control


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric(name):
    ours, theirs = both("sentence_transformers")
    dot_score = peer("sentence_transformers.util").dot_score
    tensors = rows(6, 5, torch.float64, "a", "b")
    for more in ({}, {"similarity_fct": dot_score, "scale": 1.0}):
        losses = []
        for module in (ours, theirs):
            with pytest.warns(DeprecationWarning, match=f"The {name} is deprecated"):
                losses.append(getattr(module, name)(Rows(), **more))
        assert losses[0].get_config_dict() == losses[1].get_config_dict()
        assert isinstance(losses[0], type(losses[1]))
        forms = [
            (lambda f=f, **x: f.calculate_loss([v.split(4) for v in x.values()]))
            if hasattr(f, "calculate_loss")
            else (lambda f=f, **x: f.compute_loss_from_embeddings(list(x.values()), None))
            for f in losses
        ]
        budgets(*forms, tensors)


def test_contrastive_tension():
    """Two copies of a model and a learned scale; what a user replaces takes the library's way."""
    ours, theirs = both("sentence_transformers")
    dot_score = peer("sentence_transformers.util").dot_score
    tensors = rows(6, 5, torch.float64, "a", "b")

    def call(loss, **columns):
        return loss([columns], None)

    for more in ({}, {"similarity_fct": dot_score, "scale": 1.0}):
        losses = []
        for module in (ours, theirs):
            loss = module.ContrastiveTensionLossInBatchNegatives(Rows("b"), **more)
            loss.model1 = Rows("a")
            losses.append(loss)
        budgets(*(lambda f=f, **x: call(f, **x) for f in losses), tensors)
        for loss in losses:
            call(loss, **tensors).backward()
        torch.testing.assert_close(*(x.logit_scale.grad for x in losses), rtol=1e-5, atol=1e-6)
        plain = call(losses[0], **tensors)
        for loss in losses:
            loss.cross_entropy_loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        values = [call(loss, **tensors) for loss in losses]
        torch.testing.assert_close(*values)
        assert abs(values[0] - plain) > 1e-4


@pytest.mark.parametrize("mode", [None, "all_negatives"])
@pytest.mark.parametrize("columns", [2, 3])
def test_sparse_rows(mode, columns, monkeypatch):
    """Of a vocabulary, mostly zero and never negative, under SpladeLoss with its regularisers."""
    theirs = peer("sentence_transformers.sparse_encoder.losses")
    ours, _ = both("sentence_transformers")
    torch.manual_seed(0)
    given = [torch.randn(6, 300, dtype=torch.float64).sub(2).relu() for _ in range(columns)]
    results, inner = [], []
    for module in (ours, theirs):
        loss = module.SparseMultipleNegativesRankingLoss(
            Rows(), hardness_mode=mode, hardness_strength=0.5
        )
        inner.append(loss)
        splade = theirs.SpladeLoss(Rows(), loss, 3e-5, 5e-5)
        inputs = [x.clone().requires_grad_() for x in given]
        value = sum(splade([{"rows": x} for x in inputs], None).values())
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
        with pytest.raises(AttributeError, match="should not be used alone"):
            loss([{"rows": x} for x in given], None)
    torch.testing.assert_close(*results)
    assert inner[0].get_config_dict() == inner[1].get_config_dict()
