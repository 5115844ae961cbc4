"""lightly: its contrastive losses, its memory bank, and its transforms.

Mimics lightly 1.6.0; bare integers as bank sizes, which 1.6.0 refuses, work as in 1.5.
"""

from ._lightly_bank import MemoryBankModule, NNMemoryBankModule, update_momentum
from ._lightly_crops import (
    DINOTransform,
    DINOViewTransform,
    SMoGTransform,
    SmoGViewTransform,
    SwaVTransform,
)
from ._lightly_dcl import DCLLoss, DCLWLoss, negative_mises_fisher_weights
from ._lightly_dino import DINOLoss
from ._lightly_ibot import IBOTPatchLoss, IBOTPlusPlusPatchLoss
from ._lightly_losses import NegativeCosineSimilarity, NTXentLoss, SupConLoss
from ._lightly_more import (
    DetConBLoss,
    DetConSLoss,
    DirectCLRLoss,
    HypersphereLoss,
    MACLLoss,
)
from ._lightly_swav import SwaVLoss, sinkhorn
from ._lightly_transforms import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
    DenseCLTransform,
    FastSiamTransform,
    MMCRTransform,
    MoCoV1Transform,
    MoCoV2Transform,
    SimCLRTransform,
    SimCLRViewTransform,
    SimSiamTransform,
    SimSiamViewTransform,
    TiCoTransform,
    TiCoView1Transform,
    TiCoView2Transform,
)
from ._lightly_vicreg import VICRegLoss
from ._lightly_views import MultiViewTransform

__all__ = [
    "BYOLTransform",
    "BYOLView1Transform",
    "BYOLView2Transform",
    "DCLLoss",
    "DCLWLoss",
    "DINOLoss",
    "DINOTransform",
    "DINOViewTransform",
    "DenseCLTransform",
    "DetConBLoss",
    "DetConSLoss",
    "DirectCLRLoss",
    "FastSiamTransform",
    "HypersphereLoss",
    "IBOTPatchLoss",
    "IBOTPlusPlusPatchLoss",
    "MACLLoss",
    "MMCRTransform",
    "MemoryBankModule",
    "MoCoV1Transform",
    "MoCoV2Transform",
    "MultiViewTransform",
    "NNMemoryBankModule",
    "NTXentLoss",
    "NegativeCosineSimilarity",
    "SMoGTransform",
    "SimCLRTransform",
    "SimCLRViewTransform",
    "SimSiamTransform",
    "SimSiamViewTransform",
    "SmoGViewTransform",
    "SupConLoss",
    "SwaVLoss",
    "SwaVTransform",
    "TiCoTransform",
    "TiCoView1Transform",
    "TiCoView2Transform",
    "VICRegLoss",
    "negative_mises_fisher_weights",
    "sinkhorn",
    "update_momentum",
]
