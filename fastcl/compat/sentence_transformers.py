"""sentence-transformers: its losses with negatives of the batch, as version 6.2.0 has them.

Subclasses of the library's own: only the step from embeddings to the loss differs, so the library's
trainers, cached steps and Matryoshka wrappers run them as theirs.
"""

from ._sentences_gist import CachedGISTEmbedLoss, GISTEmbedLoss
from ._sentences_multi_vector import (
    CachedMultiVectorMultipleNegativesRankingLoss,
    MultiVectorMultipleNegativesRankingLoss,
)
from ._sentences_ranking import (
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
    SparseMultipleNegativesRankingLoss,
)
from ._sentences_tension import ContrastiveTensionLossInBatchNegatives

__all__ = [
    "CachedGISTEmbedLoss", "CachedMultiVectorMultipleNegativesRankingLoss",
    "CachedMultipleNegativesRankingLoss", "CachedMultipleNegativesSymmetricRankingLoss",
    "ContrastiveTensionLossInBatchNegatives", "GISTEmbedLoss",
    "MultiVectorMultipleNegativesRankingLoss", "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss", "SparseMultipleNegativesRankingLoss",
]  # fmt: skip
