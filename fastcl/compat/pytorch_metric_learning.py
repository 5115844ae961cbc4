"""pytorch-metric-learning: its losses with sums of exponentials, and its cross-batch memory.

Subclasses of the library's own, so reducers, regularizers, wrappers and statistics work as before.
Mimics version 2.9.0. Streamed where the distance is CosineSimilarity or DotProductSimilarity, that
of NCALoss squares of unit rows; another distance, and a loss whose formula a subclass or the
instance replaces, takes the library's way.
"""

from ._metric_pairs import MultiSimilarityLoss, NCALoss, TupletMarginLoss
from ._metric_softmax import CrossBatchMemory, NTXentLoss, SupConLoss

__all__ = [
    "CrossBatchMemory",
    "MultiSimilarityLoss",
    "NCALoss",
    "NTXentLoss",
    "SupConLoss",
    "TupletMarginLoss",
]
