"""lightly: its contrastive losses and its memory bank.

Mimics lightly 1.6.0; bare integers as bank sizes, which 1.6.0 refuses, work as in 1.5.
"""

from ._lightly_bank import MemoryBankModule, update_momentum
from ._lightly_dcl import DCLLoss, DCLWLoss, negative_mises_fisher_weights
from ._lightly_losses import NegativeCosineSimilarity, NTXentLoss, SupConLoss
from ._lightly_swav import SwaVLoss, sinkhorn

__all__ = [
    "DCLLoss",
    "DCLWLoss",
    "MemoryBankModule",
    "NTXentLoss",
    "NegativeCosineSimilarity",
    "SupConLoss",
    "SwaVLoss",
    "negative_mises_fisher_weights",
    "sinkhorn",
    "update_momentum",
]
