"""The sentence methods of the table: a small transformer, from scratch, on STS-B."""

import re
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from fastcl.evaluate.geometry import effective_rank
from fastcl.evaluate.sentences import evaluate_sentences, read_pairs
from fastcl.methods import ConSERT, SimCSE
from fastcl.pretrain.optimizer import learning_rate_at

from .report_methods import DATA, Entry

LENGTH, WIDTH = 32, 128
EPOCHS, BATCH, RATE = 6, 128, 5e-4
PADDING, UNKNOWN = 0, 1


def words(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence.lower())


@cache
def vocabulary() -> dict[str, int]:
    """Words of the training sentences, from number 2 on."""
    pairs = read_pairs(DATA / "stsb" / "stsb-en-train.csv")
    found = dict.fromkeys(w for side in (pairs.first, pairs.second) for s in side for w in words(s))
    return {word: i for i, word in enumerate(found, start=2)}


def tokens(sentences: list[str]) -> Tensor:
    """`[n, LENGTH]` int64, padded with zeros."""
    known = vocabulary()
    rows = torch.zeros(len(sentences), LENGTH, dtype=torch.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        numbers = [known.get(word, UNKNOWN) for word in words(sentence)[:LENGTH]]
        row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return rows


class Body(nn.Module):
    """Two transformer layers over embedded words, then the mean over the words."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:  # [b, l, w], [b, l] -> [b, w]
        x = self.layers(x + self.position, src_key_padding_mask=~real)
        weight = real[:, :, None].to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


class Encoder(nn.Module):
    """Words to a sentence: embedding, dropout, body."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(vocabulary()) + 2, WIDTH, padding_idx=PADDING)
        self.dropout = nn.Dropout(dropout)
        self.body = Body(dropout)

    def forward(self, x: Tensor) -> Tensor:  # [b, l] -> [b, w]
        return self.body(self.dropout(self.embedding(x)), _real(x))


def _real(x: Tensor) -> Tensor:
    """Which tokens are words; a sentence without any keeps its first."""
    real = x != PADDING
    real[:, 0] = True
    return real


def measure(encoder: nn.Module) -> tuple[float, float]:
    """Spearman's correlation on the test pairs, and the effective rank of their embeddings."""
    encoder.eval()
    pairs = read_pairs(DATA / "stsb" / "stsb-en-test.csv")
    with torch.no_grad():
        rank = effective_rank(encoder(tokens(pairs.first)).double(), center=True)
        found = evaluate_sentences(lambda s: encoder(tokens(list(s))), pairs)
    encoder.train()
    return found, rank


def run(
    build: Callable[[Encoder], nn.Module],
    inputs: Callable[[Tensor], tuple],
    dropout: float,
) -> dict:
    """Measure an untrained encoder, train it on the training sentences, measure again."""
    torch.manual_seed(0)
    encoder = Encoder(dropout)
    before, rank_before = measure(encoder)
    method = build(encoder).train()
    pairs = read_pairs(DATA / "stsb" / "stsb-en-train.csv")
    sentences = tokens(list(dict.fromkeys(pairs.first + pairs.second)))
    optimizer = torch.optim.AdamW(method.parameters(), RATE)
    steps, losses = len(sentences) // BATCH, []
    for epoch in range(EPOCHS):
        order = torch.randperm(len(sentences))[: steps * BATCH].view(steps, BATCH)
        total = 0.0
        for step, index in enumerate(order):
            now = learning_rate_at(epoch * steps + step, EPOCHS * steps, RATE, 0.1)
            optimizer.param_groups[0]["lr"] = now
            loss = method(*inputs(sentences[index]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.update()
            total += loss.item()
        losses.append(total / steps)
    after, rank_after = measure(encoder)
    return {
        "figure": "Spearman", "epochs": EPOCHS, "before": before, "after": after,
        "rank_before": rank_before, "rank_after": rank_after, "loss_first": losses[0],
        "loss_last": losses[-1], "mflop_per_image": "",
    }  # fmt: skip


def _sim_cse(encoder: Encoder) -> nn.Module:
    return SimCSE(encoder, width=WIDTH)


def _consert(encoder: Encoder) -> nn.Module:
    return ConSERT(encoder.embedding, encoder.body)


def _alone(x: Tensor) -> tuple:
    return (x,)


def _with_mask(x: Tensor) -> tuple:
    return x, _real(x)


TEXT_ENTRIES = [
    Entry("simcse", "text", partial(run, _sim_cse, _alone, 0.1)),
    Entry("consert", "text", partial(run, _consert, _with_mask, 0.0)),
]
