"""The methods: networks, momentum and queue in, a loss out.

`method(view1, view2)` returns the loss; `method.update()` follows the optimiser step and moves
whatever the optimiser does not; all state is in `state_dict`. Some methods take other inputs: the
images' numbers (InstDisc, CMC), any number of crops (SwAV, DINO), one image (CPC, Deep InfoMax),
labels (SimCLR with SupCon), texts (CLIP, SigLIP, SimCSE, ConSERT).
"""

from .barlow_twins import BarlowTwins
from .byol import BYOL
from .clip import CLIP, SigLIP
from .cmc import CMC
from .consert import ConSERT
from .cpc import CPC, ImageCPC
from .dim import DeepInfoMax
from .dino import DINO
from .inst_disc import InstDisc
from .inva_spread import InvaSpread
from .moco import MoCo
from .moco_v3 import MoCoV3
from .nnclr import NNCLR
from .sim_cse import SimCSE
from .simclr import SimCLR
from .simsiam import SimSiam
from .swav import SwAV
from .vicreg import VICReg

__all__ = [
    "BYOL", "CLIP", "CMC", "CPC", "DINO", "NNCLR", "BarlowTwins", "ConSERT", "DeepInfoMax",
    "ImageCPC", "InstDisc", "InvaSpread", "MoCo", "MoCoV3", "SigLIP", "SimCLR", "SimCSE", "SimSiam",
    "SwAV", "VICReg",
]  # fmt: skip
