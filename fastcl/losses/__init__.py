"""The losses as modules: hyper-parameters and one call into `functional`."""

from .bank import CMCLoss, InstDiscLoss, NCELoss
from .dino import DINOLoss
from .features import (
    BarlowTwinsLoss,
    CPCLoss,
    DIMDVLoss,
    DIMJSDLoss,
    DIMNCELoss,
    SwAVLoss,
    VICRegLoss,
)
from .modalities import CLIPLoss, SigLIPLoss
from .momentum import BYOLLoss, MoCoLoss, MoCoV3Loss, SimSiamLoss
from .noisy_views import DebiasedLoss, HCLLoss, RINCELoss
from .positives import ContrastLoss, MatryoshkaLoss, MaxSim, MILNCELoss, RetrievalLoss
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
    "BYOLLoss", "BarlowTwinsLoss", "CLIPLoss", "CMCLoss", "CPCLoss", "ContrastLoss", "DCLLoss",
    "DCLWLoss", "DIMDVLoss", "DIMJSDLoss", "DIMNCELoss", "DINOLoss", "DebiasedLoss", "FlatNCELoss",
    "HCLLoss", "InfoNCELoss", "InstDiscLoss", "InvaSpreadLoss", "MILNCELoss", "MatryoshkaLoss",
    "MaxSim", "MoCoLoss", "MoCoV3Loss", "NCELoss", "NTXentLoss", "RINCELoss", "RetrievalLoss",
    "SigLIPLoss", "SimCSELoss", "SimSiamLoss", "SupConLoss", "SwAVLoss", "VICRegLoss",
]  # fmt: skip
