"""Sentence similarity: do cosines rank pairs of sentences as people do?"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _check


class SentencePairs(NamedTuple):
    """Pairs of sentences and how alike people find them."""

    first: list[str]
    second: list[str]
    score: Tensor  # [n] float64


def read_pairs(path: Path) -> SentencePairs:
    """Read a CSV file of `sentence1,sentence2,score` without a header, as STS-B has it.

    Raises:
        ValueError: A line that is not two sentences and a number; the message says which.
    """
    first, second, score = [], [], []
    with open(path, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            try:
                one, two, value = row
                score.append(float(value))
            except ValueError:
                raise ValueError(
                    f"line {number} of {str(path)!r} must be sentence1,sentence2,score, got {row}"
                ) from None
            first.append(one)
            second.append(two)
    return SentencePairs(first, second, torch.tensor(score, dtype=torch.float64))


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation of two vectors `[n]`, n at least 2; equals share a rank.

    Equal to ``scipy.stats.spearmanr(x, y).statistic``; NaN where one of them is constant.

    Raises:
        ValueError: Lengths differ, or fewer than two numbers.
    """
    if x.dim() != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(
            f"x and y must be vectors of one length, 2 or more, got {list(x.shape)} and "
            f"{list(y.shape)}"
        )
    from scipy.stats import rankdata

    a, b = (torch.from_numpy(rankdata(v.detach().cpu().double().numpy())) for v in (x, y))
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


def similarity_spearman(
    first: Tensor,  # [n, d]
    second: Tensor,  # [n, d]
    score: Tensor,  # [n]
) -> float:
    """Spearman correlation of the cosines of embedded pairs with the scores of people.

    Equal to ``spearman(F.cosine_similarity(first, second), score)``.

    Raises:
        ValueError: Shapes differ, or fewer than two pairs.
        TypeError: Embeddings that are not floating point, or of different dtypes.
    """
    _check.pairs("second", second, "first", first)
    return spearman(F.cosine_similarity(first.float(), second.float(), dim=1), score)


def evaluate_sentences(
    encode: Callable[[Sequence[str]], Tensor], pairs: SentencePairs, *, batch_size: int = 256
) -> float:
    """The figure of STS benchmarks for an encoder.

    Args:
        encode: Maps b sentences to embeddings `[b, d]`.
        pairs: Of `read_pairs`.
        batch_size: Sentences at a time.

    Source: Cer et al. 2017, "SemEval-2017 Task 1"; Spearman as in Gao et al. 2021, "SimCSE".
    """
    _check.count("batch_size", batch_size)
    with torch.no_grad():
        sides = [
            torch.cat([encode(side[i : i + batch_size]) for i in range(0, len(side), batch_size)])
            for side in (pairs.first, pairs.second)
        ]
    return similarity_spearman(*sides, pairs.score)
