"""The losses as functions.

All take raw rows and normalise them (eps 1e-12, in float32 at least); `normalize=False` says that
they have unit length already. All return float32 scalars (float64 for float64 rows) and
accumulate in that dtype. The kernels never form the similarity matrix: memory is linear in the
number of rows. Where none runs (`fastcl doctor` tells), the reference does, and forms it.
"""

from ..bank import bank_update_
from ..momentum import momentum_update_
from ..queue import queue_push_
from .barlow_twins import barlow_twins
from .byol import byol
from .clip import clip
from .cmc import cmc
from .contrast import contrast, false_negatives
from .cpc import cpc
from .dclw import dclw
from .debiased import debiased, hcl
from .dim import dim_dv, dim_jsd, dim_nce
from .dino import dino
from .info_nce import info_nce
from .inst_disc import inst_disc
from .inva_spread import inva_spread
from .matryoshka import matryoshka
from .max_sim import max_sim
from .mil_nce import mil_nce
from .moco import moco
from .moco_v3 import moco_v3
from .nce import nce, nce_normalizer
from .negative_sampling import negative_sampling
from .noise import noise_indices
from .nt_xent import dcl, flat_nce, nt_xent
from .random_views import random_views
from .retrieval import retrieval
from .rince import rince
from .rows import row_products
from .siglip import siglip
from .sim_cse import sim_cse
from .simsiam import simsiam
from .sinkhorn import sinkhorn
from .sup_con import sup_con
from .swav import swav
from .unit_rows import unit_rows
from .vicreg import vicreg

__all__ = [
    "bank_update_", "barlow_twins", "byol", "clip", "cmc", "contrast", "cpc", "dcl", "dclw",
    "debiased", "dim_dv", "dim_jsd", "dim_nce", "dino", "false_negatives", "flat_nce", "hcl",
    "info_nce", "inst_disc", "inva_spread", "matryoshka", "max_sim", "mil_nce", "moco", "moco_v3",
    "momentum_update_", "nce", "nce_normalizer", "negative_sampling", "noise_indices", "nt_xent",
    "queue_push_", "random_views", "retrieval", "rince", "row_products", "siglip", "sim_cse",
    "simsiam", "sinkhorn", "sup_con", "swav", "unit_rows", "vicreg",
]  # fmt: skip
