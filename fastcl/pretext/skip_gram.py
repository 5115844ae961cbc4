"""Skip-gram: a word predicts the words around it, word2vec."""

import torch
from torch import Tensor, nn

from .. import _check
from ..distributed import mean
from ..functional.negative_sampling import negative_sampling
from ..functional.noise import AliasTable

POWER = 0.75  # of the counts, in the distribution of the noise


class SkipGram(nn.Module):
    """Vectors of words that tell a word's neighbours from drawn words.

    Noise follows the counts to the power 3/4, drawn by the alias method; the loss reads the rows
    of both tables where they lie. Frequent words are thinned out by `subsample` before pairs are
    made, as in the paper: else "the" takes most of the training.

    Args:
        counts: `[n]` floating-point occurrences of each word.
        width: Of the vectors.
        noise: Drawn words per pair, K: 5 to 20 for small corpora, 2 to 5 for large ones.

    Attributes:
        vectors: `[n, width]`, the result.
        contexts: `[n, width]`, of words as neighbours; zero at first.

    Raises:
        ValueError, TypeError: Counts that no noise can be drawn from, or a choice out of range.

    Source: Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their
    Compositionality", sections 2.2 and 2.3.
    """

    def __init__(self, counts: Tensor, *, width: int, noise: int = 5) -> None:
        super().__init__()
        _check.count("width", width)
        _check.count("noise", noise)
        self.noise = noise
        self.table = AliasTable(counts**POWER if isinstance(counts, Tensor) else counts)
        vectors = (torch.rand(len(counts), width) - 0.5) / width
        self.vectors = nn.Parameter(vectors)
        self.contexts = nn.Parameter(torch.zeros_like(vectors))

    def draw(self, context: Tensor) -> Tensor:  # [b] int64
        """Every context, then drawn words: `[b, 1 + noise]` int64."""
        return self.table(context, self.noise)

    def loss(self, center: Tensor, index: Tensor) -> Tensor:
        loss = negative_sampling(self.vectors[center], self.contexts, index)
        return mean(loss, rows=len(center))

    def forward(
        self,
        center: Tensor,  # [b] int64
        context: Tensor,  # [b] int64
    ) -> Tensor:
        """The loss of pairs of words, a scalar."""
        return self.loss(center, self.draw(context))


def subsample(
    tokens: Tensor,  # [t] int64
    counts: Tensor,  # [n]
    *,
    threshold: float = 1e-5,
) -> Tensor:
    """The tokens that stay: a word of frequency f goes with probability ``1 - sqrt(threshold / f)``
    (equation 5)."""
    _check.positive("threshold", threshold)
    frequency = counts / counts.sum()
    keep = (threshold / frequency).sqrt()[tokens]
    return tokens[torch.rand_like(keep) < keep]


def word_pairs(
    tokens: Tensor,  # [t] int64
    window: int = 5,
) -> tuple[Tensor, Tensor]:
    """Centres and contexts `[pairs]`: each token with those up to r away, r drawn from 1 to window
    for every token, so that near words count more."""
    _check.count("window", window)
    place = torch.arange(len(tokens), device=tokens.device)
    reach = torch.randint(1, window + 1, (len(tokens),), device=tokens.device)
    centers, contexts = [], []
    for offset in [*range(-window, 0), *range(1, window + 1)]:
        other = place + offset
        there = (reach >= abs(offset)) & (other >= 0) & (other < len(tokens))
        centers.append(tokens[there])
        contexts.append(tokens[other[there]])
    return torch.cat(centers), torch.cat(contexts)
