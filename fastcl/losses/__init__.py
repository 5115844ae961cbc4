"""The losses as modules: hyper-parameters and one call into `functional`."""

from .bank import CMCLoss, InstDiscLoss, NCELoss
from .features import BarlowTwinsLoss, CPCLoss, DIMDVLoss, DIMJSDLoss, DIMNCELoss, SwAVLoss
from .modalities import CLIPLoss, SigLIPLoss
from .momentum import BYOLLoss, MoCoLoss, MoCoV3Loss, SimSiamLoss
from .views import (
    DCLLoss,
    DCLWLoss,
    FlatNCELoss,
    InfoNCELoss,
    InvaSpreadLoss,
    NTXentLoss,
    SimCSELoss,
    SupConLoss,
)

__all__ = [
    "BYOLLoss", "BarlowTwinsLoss", "CLIPLoss", "CMCLoss", "CPCLoss", "DCLLoss", "DCLWLoss",
    "DIMDVLoss", "DIMJSDLoss", "DIMNCELoss", "FlatNCELoss", "InfoNCELoss", "InstDiscLoss",
    "InvaSpreadLoss", "MoCoLoss", "MoCoV3Loss", "NCELoss", "NTXentLoss", "SigLIPLoss", "SimCSELoss",
    "SimSiamLoss", "SupConLoss", "SwAVLoss",
]  # fmt: skip
