"""sentence-transformers' losses in fastcl.compat: dtypes, a learned scale, uneven columns."""

import inspect

import pytest
import torch
from peers import both, peer, rows
from torch import nn

MODEL = nn.Sequential(nn.Identity())
EVERY = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


def losses(name="MultipleNegativesRankingLoss", **options):
    """fastcl's and the library's, as functions of embeddings."""
    for module in both("sentence_transformers"):
        loss = getattr(module, name)(MODEL, **options)
        if hasattr(loss, "calculate_loss"):
            yield loss, lambda *x, f=loss: f.calculate_loss([e.split(4) for e in x])
        else:
            yield loss, lambda *x, f=loss: f.compute_loss_from_embeddings(list(x), None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("directions", [EVERY[:1], EVERY])
@pytest.mark.parametrize(
    "name", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"]
)
@pytest.mark.parametrize("product", [False, True])
def test_embeddings_of_16_bits(dtype, directions, name, product):
    """Raised to float32, the loss too; products above 65,504 are no infinity."""
    options = {"directions": directions}
    length = 1
    if product:
        options |= {"similarity_fct": peer("sentence_transformers.util").dot_score, "scale": 1.0}
        length = 300
    tensors = [length * x for x in rows(6, 64, dtype, "a", "b", "c").values()]
    results = []
    for _, loss in losses(name, **options):
        inputs = [x.clone().requires_grad_() for x in tensors]
        value = loss(*inputs)
        assert value.dtype == torch.float32 and value.isfinite()
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    if not product:  # products of 1e5 are rounded to 0.01, and near ties with them
        torch.testing.assert_close(*results, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("directions", [EVERY[:1], EVERY])
def test_under_autocast(dtype, directions):
    tensors, results = list(rows(6, 64, dtype, "a", "b").values()), []
    for _, loss in losses(directions=directions):
        with torch.autocast("cpu", torch.bfloat16):
            results.append(loss(*tensors))
    torch.testing.assert_close(*results, rtol=2e-2, atol=2e-2)  # and the dtype


@pytest.mark.parametrize("mode", [None, "in_batch_negatives", "hard_negatives", "all_negatives"])
@pytest.mark.parametrize("directions", [EVERY[:1], EVERY[::2]])
@pytest.mark.parametrize(
    "name", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"]
)
def test_a_learned_scale(mode, directions, name):
    """What hardness adds to a logit is a constant, to the scale as to the embeddings.

    Where the library masks a logit by minus infinity, its gradient of a scale is NaN.
    """
    tensors, results = list(rows(6, 5, torch.float64, "a", "b", "c").values()), []
    options = {"hardness_mode": mode, "hardness_strength": 3.0, "directions": directions}
    for loss, call in losses(name, **options):
        scale = nn.Parameter(torch.tensor(4.0, dtype=torch.float64))
        (loss.loss if hasattr(loss, "calculate_loss") else loss).scale = scale
        inputs = [x.clone().requires_grad_() for x in tensors]
        results.append(torch.autograd.grad(call(*inputs), [*inputs, scale]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("directions", [EVERY[:1], EVERY[:2], EVERY[:3]])
@pytest.mark.parametrize("counts", [(9,), (6, 4), (9, 3), (7, 9)])
def test_more_documents_than_queries(directions, counts):
    queries = rows(6, 5, torch.float64, "a")["a"]
    documents = [rows(n, 5, torch.float64, "d")["d"] for n in counts]
    results = []
    for _, loss in losses(directions=directions):
        inputs = [x.clone().requires_grad_() for x in (queries, *documents)]
        value = loss(*inputs)
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    torch.testing.assert_close(*results)


def test_products_in_the_millions():
    """Every row is decided, so weights are zeros and ones."""
    dot_score = peer("sentence_transformers.util").dot_score
    tensors, results = [1000 * torch.randn(80, 64) for _ in "ab"], []
    for _, loss in losses(similarity_fct=dot_score, scale=1.0):
        inputs = [x.clone().requires_grad_() for x in tensors]
        value = loss(*inputs)
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-3)


def test_what_the_library_warns_of_is_said_once(caplog):
    options = {"hardness_mode": "all_negatives", "scale": 7.0, "directions": EVERY}
    found = []
    for loss, _ in losses("CachedMultipleNegativesRankingLoss", **options):
        found.append([r.message for r in caplog.records])
        caplog.clear()
        assert loss.scale == 7.0 and loss.loss.directions == EVERY
    assert found[0] == found[1] and len(found[0]) == 1


def test_too_few_positives_are_named():
    x = torch.randn(4, 3)
    for name in ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"):
        loss = next(iter(losses(name)))[1]
        with pytest.raises(ValueError, match="positives must be as many as anchors, 4, got 3"):
            loss(x, x[:3])
        with pytest.raises(ValueError, match="Expected at least 2"):
            loss(x)


def test_constructors_have_the_librarys_signature():
    """For editors, and for programs that make losses from a file of options."""
    ours = both("sentence_transformers")[0]
    for name in ours.__all__:
        mine = getattr(ours, name)
        their = next(c for c in mine.__mro__[1:] if c.__name__ == name)
        assert inspect.signature(mine) == inspect.signature(their)
