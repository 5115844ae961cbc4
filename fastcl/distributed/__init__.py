"""Several processes: gradients averaged over the ranks equal one process with the global batch.

Losses that share the work between the ranks, the mean over all ranks for losses without
negatives, and the rows of all ranks with and without gradient for everything else. Plain
torch.distributed over a group of ranks; nothing happens in one process. See docs/distributed.md.

Each loss is its namesake in `fastcl.functional` on the rows of all ranks in rank order: the value
is that of one process with the global batch, the same on every rank, and gradients averaged over
the ranks (DistributedDataParallel, FSDP) are those of one process. The gradient of a scale or a
bias is exact on every rank already; averaging leaves it. In one process they are their namesakes.

Arguments beyond those of the namesake::

    mode: "gather" holds the columns of all ranks in memory, "ring" a block of them at a time.
    group: The ranks that take part; None: all.
    equal: Every rank has as many rows and the same other arguments: saves exchanging them, for
        which the host waits. Nothing is checked then, and where they differ, values are wrong or
        the process ends.

Every rank must call the function and run its backward, and scale the result alike. Without
`equal`, an argument that does not fit on one rank, or that differs between ranks, raises on all
of them.
"""

from .._ranks import gather, gather_with_gradient, rank, world_size
from ._plan import mean
from .pairs import clip, info_nce, moco, siglip
from .positives import contrast
from .tokens import max_sim
from .views import dcl, flat_nce, nt_xent, sup_con

__all__ = [
    "clip", "contrast", "dcl", "flat_nce", "gather", "gather_with_gradient", "info_nce", "max_sim",
    "mean", "moco", "nt_xent", "rank", "siglip", "sup_con", "world_size",
]  # fmt: skip
