"""Several processes: gradients averaged over the ranks equal one process with the global batch.

Losses that share the work between the ranks, the mean over all ranks for losses without
negatives, and the rows of all ranks with and without gradient for everything else. Plain
torch.distributed over a group of ranks; nothing happens in one process. See docs/distributed.md.
"""

from .._ranks import gather, gather_with_gradient, rank, world_size
from ._plan import mean
from .losses import clip, dcl, flat_nce, info_nce, moco, nt_xent, siglip, sup_con

__all__ = [
    "clip", "dcl", "flat_nce", "gather", "gather_with_gradient", "info_nce", "mean", "moco",
    "nt_xent", "rank", "siglip", "sup_con", "world_size",
]  # fmt: skip
