"""The losses of sentence-transformers and PyLate as cases of `benchmarks.migration`."""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .absent import imported
from .cases import TEMPERATURE
from .migration_case import Inputs, Replaced, rows, views, with_more

HOME = "sentence_transformers.sentence_transformer.losses"
VECTORS = "sentence_transformers.multi_vector_encoder.losses"
SPARSE = "sentence_transformers.sparse_encoder.losses"
VOCABULARY = 30522  # of BERT, which SPLADE's rows are as wide as


def _of_embeddings(name: str, **options) -> Callable:
    def build(module, n):
        loss = _quietly(getattr(module, name), torch.nn.Sequential(torch.nn.Identity()), **options)
        return lambda anchor, positive: loss.compute_loss_from_embeddings([anchor, positive], None)

    return build


def _quietly(make: Callable, *args, **options):
    """The library warns that the symmetric classes will go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(*args, **options)


def _in_parts(loss, sides: list[Tensor], *more) -> Tensor:
    """The part between the two embedding passes, mini-batches of its default size."""
    leaves = [
        [x.requires_grad_() for x in side.detach().split(loss.mini_batch_size)] for side in sides
    ]
    value = loss.calculate_loss(leaves, *more, with_backward=True)
    # Its hook hands the gradients to the second embedding pass; here the rows are the leaves.
    handed = sum(
        (side * torch.cat([x.grad for x in parts])).sum()
        for side, parts in zip(sides, leaves, strict=True)
    )
    return value + (handed - handed.detach())


def _cached(name: str) -> Callable:
    def build(module, n):
        model = torch.nn.Sequential(torch.nn.Identity())
        loss = _quietly(getattr(module, name), model, scale=1 / TEMPERATURE)
        return lambda anchor, positive: _in_parts(loss, [anchor, positive])

    return build


@functools.cache
def embedding_model(key: str) -> torch.nn.Module:
    """A model of sentences as far as the losses look, whose embeddings are in its features."""

    class Model(torch.nn.Module):
        max_seq_length = 8

        def __getitem__(self, index):
            return self

        def forward(self, features):
            return {"sentence_embedding": features[key]}

    transformers = imported("transformers")
    tokenizers = imported("tokenizers")
    words = tokenizers.models.WordLevel({"a": 0}, unk_token="a")
    model = Model()
    model.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), unk_token="a"
    )
    return model


def _guided(module, n):
    loss = module.GISTEmbedLoss(
        embedding_model("row"), embedding_model("guide"), temperature=TEMPERATURE
    )

    def function(anchor, positive, *, x, y):
        return loss([{"row": anchor, "guide": x}, {"row": positive, "guide": y}], None)

    return function


def _guided_in_parts(module, n):
    loss = module.CachedGISTEmbedLoss(
        embedding_model("row"), embedding_model("guide"), temperature=TEMPERATURE
    )

    def function(anchor, positive, *, x, y):
        guides = [list(g.split(loss.mini_batch_size)) for g in (x, y)]
        return _in_parts(loss, [anchor, positive], guides)

    return function


def _tension(module, n):
    loss = module.ContrastiveTensionLossInBatchNegatives(
        embedding_model("anchor"), scale=1 / TEMPERATURE
    )
    loss.model1 = embedding_model("positive")
    return lambda **rows: loss([rows], None)


def _sparse(n: int) -> Inputs:
    """One word in 256, with the weight that SPLADE's activation gives."""
    some = {k: torch.rand(n, VOCABULARY) < 1 / 256 for k in ("anchor", "positive")}
    return {k: torch.where(m, torch.rand(m.shape), 0).requires_grad_() for k, m in some.items()}


class _Tokens(torch.nn.Module):
    """A model whose token embeddings are in its features; all of them count."""

    def forward(self, features, task=None):
        x = features["tokens"]
        return {"token_embeddings": x, "attention_mask": x.new_ones(x.shape[:2], dtype=torch.bool)}


def _multi_vector(module, n):
    loss = module.MultiVectorMultipleNegativesRankingLoss(_Tokens())
    return lambda anchor, positive: loss([{"tokens": anchor}, {"tokens": positive}])


def _multi_vector_in_parts(module, n):
    loss = module.CachedMultiVectorMultipleNegativesRankingLoss(_Tokens())

    def function(anchor, positive):
        sides = anchor, positive
        masks = [x.new_ones(x.shape[:2], dtype=torch.bool) for x in sides]
        return _in_parts(loss, list(sides), [list(x.split(loss.mini_batch_size)) for x in masks])

    return function


class _ColBERT(torch.nn.Module):
    """PyLate's, likewise; queries are padded to their length by words that count."""

    skiplist: tuple[int, ...] = ()
    do_query_expansion = True

    def forward(self, features):
        return {"token_embeddings": features["tokens"]}


def _column(x: Tensor) -> dict[str, Tensor]:
    ids = torch.zeros(x.shape[:2], dtype=torch.long)
    return {"tokens": x, "input_ids": ids, "attention_mask": ids + 1}


def _pylate(module, n):
    loss = module.Contrastive(_ColBERT())
    return lambda anchor, positive: loss([_column(anchor), _column(positive)])


def _pylate_in_parts(module, n):
    loss = module.CachedContrastive(_ColBERT())

    def function(anchor, positive):
        masks = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (anchor, positive)]
        return _in_parts(loss, [anchor, positive], masks)

    return function


def _texts(n: int) -> Inputs:
    """A query of ColBERT's length and a passage each."""
    some = {"anchor": torch.randn(n, 32, 128), "positive": torch.randn(n, 180, 128)}
    return {k: normalize(x, dim=2).requires_grad_() for k, x in some.items()}


def _case(
    name: str,
    build: Callable,
    inputs: Callable,
    rows: int = 2048,
    size: str = "2,048 x 512",
    home: str = HOME,
) -> Replaced:
    package = "sentence-transformers"
    return Replaced("sentence_transformers", home, package, name, rows, size, build, inputs)


_PAIRS, _SCALED = views(512, "anchor", "positive"), {"scale": 1 / TEMPERATURE}
# The library's cosines of GISTEmbed take n x n x width numbers: 512 x 512 x 128 of them, 134 MB.
_JUDGED = with_more(views(128, "anchor", "positive"), **{k: lambda n: rows(n, 128) for k in "xy"})
_TEXTS = "64 x 32 and 180 x 128"
_SYMMETRIC = "MultipleNegativesSymmetricRankingLoss"

SENTENCES = (
    _case("MultipleNegativesRankingLoss", _of_embeddings("MultipleNegativesRankingLoss", **_SCALED),
          _PAIRS),
    _case("CachedMultipleNegativesRankingLoss", _cached("CachedMultipleNegativesRankingLoss"),
          _PAIRS),
    _case(_SYMMETRIC, _of_embeddings(_SYMMETRIC, **_SCALED), _PAIRS),
    _case(f"Cached{_SYMMETRIC}", _cached(f"Cached{_SYMMETRIC}"), _PAIRS),
    _case("ContrastiveTensionLossInBatchNegatives", _tension, _PAIRS),
    _case("GISTEmbedLoss", _guided, _JUDGED, 512, "512 x 128, guide 128"),
    _case("CachedGISTEmbedLoss", _guided_in_parts, _JUDGED, 512, "512 x 128, guide 128"),
    _case("SparseMultipleNegativesRankingLoss",
          _of_embeddings("SparseMultipleNegativesRankingLoss"), _sparse, 256,
          f"256 x {VOCABULARY:,}", SPARSE),
    _case("MultiVectorMultipleNegativesRankingLoss", _multi_vector, _texts, 64, _TEXTS, VECTORS),
    _case("CachedMultiVectorMultipleNegativesRankingLoss", _multi_vector_in_parts, _texts, 64,
          _TEXTS, VECTORS),
    *(
        Replaced("pylate", "pylate.losses", "pylate", name, 64, _TEXTS, build, _texts)
        for name, build in (("Contrastive", _pylate), ("CachedContrastive", _pylate_in_parts))
    ),
)  # fmt: skip
