"""pytorch-metric-learning: its losses with sums of exponentials, and its cross-batch memory.

Subclasses of the library's own, so reducers, regularizers, wrappers and statistics work as before.
Mimics version 2.9.0. Streamed where the distance is CosineSimilarity or DotProductSimilarity;
another distance, and a loss whose formula a subclass or the instance replaces, takes the library's
way.
"""

from ._metric_pairs import MultiSimilarityLoss, TupletMarginLoss
from ._metric_softmax import CrossBatchMemory, NTXentLoss, SupConLoss

__all__ = [
    "CrossBatchMemory",
    "MultiSimilarityLoss",
    "NTXentLoss",
    "SupConLoss",
    "TupletMarginLoss",
]
