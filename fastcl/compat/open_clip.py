"""open_clip: its CLIP, CoCa, distillation and SigLIP losses, and what subclasses of them import.

Mimics version 3.3.0.
"""

from ._open_clip_distill import DistillClipLoss
from ._open_clip_exchange import (
    NeighbourExchange,
    NeighbourExchangeBidir,
    gather_features,
    neighbour_exchange,
    neighbour_exchange_bidir,
    neighbour_exchange_bidir_with_grad,
    neighbour_exchange_with_grad,
)
from ._open_clip_sigmoid import SigLipLoss
from ._open_clip_softmax import ClipLoss, CoCaLoss

__all__ = [
    "ClipLoss",
    "CoCaLoss",
    "DistillClipLoss",
    "NeighbourExchange",
    "NeighbourExchangeBidir",
    "SigLipLoss",
    "gather_features",
    "neighbour_exchange",
    "neighbour_exchange_bidir",
    "neighbour_exchange_bidir_with_grad",
    "neighbour_exchange_with_grad",
]
