"""The forward's sums in CUDA C++ for compute capability 9.0, off unless a program asks for it.

Triton finishes a product before it begins its exponentials; csrc/cuda/contrast_sums.cu lets the
exponentials of one warpgroup run under the product of another. It has been compiled and read, not
run: tests/test_gpu_hopper.py has to pass on a GPU before it may be the default.
"""

import torch
import triton
from torch import Tensor

from ..reference.contrast_sums import BLOCK, COLUMNS, TILE
from . import contrast_common as common
from . import contrast_config as config
from .contrast_combine import fold_kernel
from .contrast_common import Operands

LAUNCH_TILES = 64  # of 128 rows: bounds the sums down the columns to [128, m]
_enabled = False


def use_cuda_sums(enabled: bool) -> None:
    """Let this process take the CUDA C++ kernel where it serves: two-sided losses over bfloat16.

    Everything else, and every GPU that is not of compute capability 9.0, stays with Triton. To be
    called before the first loss, and again to go back.
    """
    global _enabled
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled must be True or False, got {enabled!r}")
    _enabled = enabled


def serves(p: Operands, pivot: Tensor | None, columns: bool) -> bool:
    """Whether the switch is on and the kernel has been built for this problem."""
    if not _enabled or p.symmetric or pivot is not None or not columns:
        return False
    capable = torch.cuda.get_device_properties(p.q.device).major == 9
    built = torch._C._dispatch_has_kernel_for_dispatch_key("fastcl::contrast_sums_", "CUDA")
    return capable and built and p.plan.bulk and p.q.dtype == torch.bfloat16


def fixed_sums(p: Operands) -> tuple[Tensor, Tensor]:
    """Partial sums of the rows [strips, n], and the columns' in float64 [m]."""
    n, m, _ = p.sizes
    row_tiles, col_tiles = triton.cdiv(n, TILE), triton.cdiv(m, COLUMNS)
    launch_tiles = min(row_tiles, LAUNCH_TILES)
    # Two processors take a pair of row tiles, and the grid stays for two rounds of strips.
    pairs = triton.cdiv(launch_tiles, 2)
    strips, strip = config.strips(pairs, col_tiles, p.plan.processors)
    parts = common.empty(p.q, strips, n)
    down = common.empty(p.q, 2 * launch_tiles, m)
    state = common.empty(p.q, m, dtype=torch.float64)
    scale = None if p.logit_scale is None else p.logit_scale.float().reshape(1)
    ranges = p.ranges(BLOCK, COLUMNS)
    for first in range(0, row_tiles, launch_tiles):
        count = min(launch_tiles, row_tiles - first)
        torch.ops.fastcl.contrast_sums_(
            p.q, p.k, p.scale, scale, p.row_ids, p.col_ids, *ranges,
            first, count, strip, p.plan.processors, parts, down,
        )  # fmt: skip
        fold_kernel[(triton.cdiv(m, common.BLOCK),)](
            down, state, first, 2 * count, m, BLOCK, BLOCK, common.PARTS, common.BLOCK, False
        )
    return parts, state
