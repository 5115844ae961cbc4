"""The losses as functions.

All take raw rows and normalise them (eps 1e-12, in float32 at least); `normalize=False` says that
they have unit length already. All return float32 scalars (float64 for float64 rows) and
accumulate in that dtype. The kernels never form the similarity matrix: memory is linear in the
number of rows. Where none runs (`fastcl doctor` tells), the reference does, and forms it.
"""

from ..contrast import Contrast, contrast
from ..momentum import momentum_update_
from ..queue import queue_push_
from ..sigmoid_contrast import sigmoid_contrast
from .clip import clip
from .info_nce import info_nce
from .moco import moco
from .nt_xent import dcl, flat_nce, nt_xent
from .rows import row_products, unit_rows
from .siglip import siglip
from .sup_con import sup_con

__all__ = [
    "Contrast", "clip", "contrast", "dcl", "flat_nce", "info_nce", "moco", "momentum_update_",
    "nt_xent", "queue_push_", "row_products", "siglip", "sigmoid_contrast", "sup_con",
    "unit_rows",
]  # fmt: skip
