"""GISTEmbed's losses in fastcl.compat beside the library's: what the guide leaves out."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peers import DTYPES, SHAPES, both, budgets, peer, rows
from torch import nn

NAMES = ("GISTEmbedLoss", "CachedGISTEmbedLoss")
MARGINS = ("absolute", 0.0), ("absolute", 0.3), ("relative", 0.2)


@functools.cache
def tokenizer(words: int):
    tokenizers, transformers = peer("tokenizers"), peer("transformers")
    vocabulary = {f"w{i}": i for i in range(words)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    named = {"unk_token": "w0", "pad_token": "w1"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **named)


class Rows(nn.Module):
    """A model whose embeddings are in its features."""

    def __init__(self, key: str = "rows", words: int = 20) -> None:
        super().__init__()
        self.key, self.tokenizer, self.max_seq_length = key, tokenizer(words), 8
        self.device = torch.device("cpu")

    def __getitem__(self, index: int):
        return self

    def get_embedding_dimension(self) -> int:
        return 5

    def forward(self, features):
        features["sentence_embedding"] = features[self.key].clone()
        return features


def as_functions(name: str, guides: list[torch.Tensor], **options):
    """fastcl's and the library's, each a function of the embeddings of every column."""
    for module in both("sentence_transformers"):
        loss = getattr(module, name)(Rows(), Rows("guide"), **options)
        yield loss, functools.partial(call, loss, guides)


def call(loss, guides, *columns, **named):
    columns = columns or named.values()
    if hasattr(loss, "calculate_loss"):
        parts = ([x.split(4) for x in xs] for xs in (columns, guides))
        return loss.calculate_loss(*parts)
    pairs = zip(columns, guides, strict=True)
    return loss([{"rows": x, "guide": g} for x, g in pairs], None)


def judged(n: int, columns: int, dtype=torch.float64):
    """Rows of a guide, some of which are the same text: equal similarities."""
    guides = [torch.randn(n, 3, dtype=dtype) for _ in range(columns)]
    for g in guides:
        g[n // 2] = g[0]
    guides[1][-1] = guides[0][-1]  # anchor and positive are one text
    return guides


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", [2, 3])
@given(
    margin=st.sampled_from(MARGINS), parts=st.sampled_from([(1, 1), (1, 0), (0, 1), (0, 0)]),
    t=st.floats(0.05, 2), dtype=DTYPES, **SHAPES,
)  # fmt: skip
def test_value_and_gradients(name, columns, margin, parts, t, dtype, n, d, seed):
    torch.manual_seed(seed)
    guides, tensors = judged(n, columns), rows(n, d, dtype, *"abc"[:columns])
    options = {"temperature": t, "margin_strategy": margin[0], "margin": margin[1]}
    options |= {"contrast_anchors": bool(parts[0]), "contrast_positives": bool(parts[1])}
    (ours, mine), (theirs, their) = as_functions(name, guides, **options)
    assert type(ours).__module__.startswith("fastcl") and isinstance(ours, type(theirs))
    budgets(mine, their, tensors, logit=1 / t)
    kept = ours.get_config_dict(), theirs.get_config_dict()
    assert [x.pop("guide").key for x in kept] == ["guide", "guide"] and kept[0] == kept[1]


def test_the_guide_decides():
    """Another guide, another loss: a negative control of the comparisons above."""
    tensors = rows(8, 5, torch.float64, "a", "b")
    values = []
    for guides in (judged(8, 2), judged(8, 2)):
        (_, mine), _ = as_functions("GISTEmbedLoss", guides)
        values.append(mine(**tensors))
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_no_scores_are_formed(name, monkeypatch):
    guides, tensors = judged(8, 3), rows(8, 5, torch.float64, *"abc")
    (_, mine), (_, their) = as_functions(name, guides)
    monkeypatch.setattr(nn.CosineSimilarity, "forward", None)
    mine(**tensors)
    with pytest.raises(TypeError):
        their(**tensors)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_of_the_result(name, autocast, dtype):
    if autocast and dtype == torch.float16:
        pytest.skip("autocast on the CPU joins no float16, in the library neither")
    torch.manual_seed(0)
    guides = judged(8, 2, torch.float32)
    tensors, results = rows(8, 64, dtype, "a", "b"), []
    for _, loss in as_functions(name, guides, temperature=0.5):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            results.append(loss(**tensors))
    torch.testing.assert_close(*results, rtol=2e-2, atol=2e-2)  # and the dtype


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_several_dtypes(name):
    guides, results = judged(8, 2), []
    tensors = [
        x.to(t) for x, t in zip(torch.randn(2, 8, 5), (torch.bfloat16, torch.float32), strict=True)
    ]
    for _, loss in as_functions(name, guides):
        results.append(loss(*tensors))
    # The library takes the length of a row of 16 bits in 16 bits.
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_user_replaces_is_called(name):
    guides, tensors = judged(8, 2), rows(8, 5, torch.float64, "a", "b")
    changes = (
        lambda loss: setattr(loss, "cross_entropy_loss", nn.CrossEntropyLoss(label_smoothing=0.1)),
        lambda loss: setattr(loss, "similarity_fct", nn.CosineSimilarity(dim=-1, eps=2.0)),
        lambda loss: setattr(loss, "sim_matrix", lambda a, b: (a @ b.T).tanh()),
    )
    plain = list(as_functions(name, guides))[0][1](**tensors)
    for change in changes:
        values = []
        for loss, function in as_functions(name, guides):
            change(loss)
            values.append(function(**tensors))
        torch.testing.assert_close(*values)
        assert abs(values[0] - plain) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_learned_temperature(name):
    guides, tensors, results = judged(6, 3), rows(6, 5, torch.float64, *"abc"), []
    for loss, function in as_functions(name, guides, contrast_anchors=False,
                                       contrast_positives=False, margin=-3.0):  # fmt: skip
        # Nothing is left out: minus infinity makes the library's gradient of a temperature NaN.
        loss.temperature = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        inputs = [x.clone().requires_grad_() for x in tensors.values()]
        results.append(torch.autograd.grad(function(*inputs), [*inputs, loss.temperature]))
    torch.testing.assert_close(*results)


def test_texts_for_a_guide_with_other_words():
    """The guide gets the texts again, in its own tokens, whether padded or one after the other."""

    class Guide(Rows):
        def __init__(self):
            super().__init__("rows", words=30)
            self.seen = []

        def preprocess(self, texts):
            self.seen.append(texts)
            return {"rows": torch.tensor([[len(t), hash(t) % 7, 1.0] for t in texts])}

    ids = torch.tensor([[3, 4, 1], [5, 6, 7], [8, 1, 1]])
    flat = {"input_ids": torch.tensor([[3, 4, 5, 6, 7, 8]]),
            "cu_seq_lens_q": torch.tensor([0, 2, 5, 6])}  # fmt: skip
    for tokens in ({"input_ids": ids}, flat):
        values, seen = [], []
        for module in both("sentence_transformers"):
            torch.manual_seed(0)
            loss = module.GISTEmbedLoss(Rows(), Guide())
            columns = [{"rows": torch.randn(3, 5), **tokens} for _ in "ab"]
            values.append(loss(columns, None))
            seen.append(loss.guide.seen)
        torch.testing.assert_close(*values)
        assert seen[0] == seen[1] == [["w3 w4", "w5 w6 w7", "w8"]] * 2


def test_errors():
    for module in both("sentence_transformers"):
        with pytest.raises(ValueError, match="got 4"):
            call(module.GISTEmbedLoss(Rows(), Rows("guide")), judged(4, 4), *judged(4, 4))
        loss = module.CachedGISTEmbedLoss(Rows(), Rows("guide"))
        with pytest.raises(ValueError, match="reps"):
            loss.calculate_loss([[torch.randn(4, 3)]] * 2, [[torch.randn(4, 3)]])
    loss = both("sentence_transformers")[0].GISTEmbedLoss(Rows(), Rows("guide"))
    with pytest.raises(ValueError, match="positives must be as many as anchors, 4, got 3"):
        call(loss, [torch.randn(4, 3), torch.randn(3, 3)], torch.randn(4, 5), torch.randn(3, 5))
