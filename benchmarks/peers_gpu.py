"""Libraries whose kernels run on NVIDIA GPUs only, one adaptor each.

None has the gradient of a scale inside its kernel or a mask of the row itself, so they meet the
losses of two sets of rows. Where one covers a single direction it is called once per direction.
"""

import importlib.util
import site
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import BIAS, TEMPERATURE, Case, Function
from .variant import Variant

PAIRS = ("info_nce", "clip")


def _directions(case: Case, rows: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A loss of unit rows against unit columns, for one direction or the mean of both."""

    def function(*views: Tensor, **named: Tensor) -> Tensor:
        q, k = (F.normalize(x, dim=1) for x in (*views, *named.values()))
        return rows(q, k) if case.loss == "info_nce" else (rows(q, k) + rows(k, q)) / 2

    return function


def _inf_cl(case: Case) -> Function:
    from inf_cl import cal_flash_loss

    head = min(case.d, 256)
    return _directions(
        case, lambda q, k: cal_flash_loss(q, k, scale=1 / TEMPERATURE, head_dim=head).mean()
    )


def _inf_cl_range(case: Case) -> str:
    if case.n % 64:
        return "its backward reads past the end where the rows are no multiple of 64"
    if case.d % min(case.d, 256) or case.d & (case.d - 1) and case.d < 256:
        return "needs a width that its heads of 256 divide"
    return ""


def _cut_cross_entropy(case: Case) -> Function:
    from cut_cross_entropy import linear_cross_entropy

    # Its default leaves out gradients below 2^-12: the average weight of a negative here.
    return _directions(
        case,
        lambda q, k: linear_cross_entropy(
            q / TEMPERATURE, k, torch.arange(len(q), device=q.device), filter_eps=None
        ),
    )


def _half_only(case: Case) -> str:
    return "its backward takes no float32 rows" if case.dtype == torch.float32 else ""


def _liger(case: Case) -> Function:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    return _directions(
        case, lambda q, k: loss(k, q / TEMPERATURE, torch.arange(len(q), device=q.device))
    )


def _memeff(case: Case) -> Function:
    from memeff import MemoryEfficientCLIPLoss, MemoryEfficientQwen3Loss

    options = {"temperature": TEMPERATURE, "stable": False}  # stable rescales the gradients
    if case.loss == "clip":
        loss = MemoryEfficientCLIPLoss(**options)
    else:
        loss = MemoryEfficientQwen3Loss(**options, margin=2.0)  # 2 masks no false negatives
    return lambda *views, **named: loss(*views, *named.values())


def _memeff_range(case: Case) -> str:
    if TEMPERATURE < 0.02:
        return "its fixed shift underflows below a temperature of 0.02"
    return "" if case.d >= 16 else "needs a width of 16 at least"


def _quack(case: Case) -> Function:
    # cutlass lies deeper in the folder of all, which a path of its own (*.pth) says.
    site.addsitedir(str(Path(importlib.util.find_spec("quack").origin).parents[1]))
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return _directions(
        case,
        lambda q, k: chunked_linear_cross_entropy(
            q / TEMPERATURE, k, torch.arange(len(q), device=q.device)
        ),
    )


def _quack_range(case: Case) -> str:
    if case.dtype == torch.float32:
        return "its products take no float32 rows"
    # What else it takes goes its older way, several kernels for what is one here.
    if case.n % 128 or case.d % 8:
        return "its fused kernels take columns by 128 and widths by 8"
    return ""


def _siglip_kernel(case: Case) -> Function:
    from siglip_kernel import fused_siglip_loss

    def function(image, text):
        log_scale = torch.tensor(1 / TEMPERATURE, device=image.device).log()
        bias = torch.tensor(BIAS, device=image.device)
        return fused_siglip_loss(F.normalize(image, dim=1), F.normalize(text, dim=1), log_scale,
                                 bias)  # fmt: skip

    return function


GPU_PEERS = (
    Variant(
        "Inf-CL", PAIRS, _inf_cl, 0, "inf-cl", "inf_cl", gpu=True, outside=_inf_cl_range,
        remark="float32 rows and TF32 products whatever the input; both directions apart",
    ),
    Variant(
        "cut-cross-entropy", PAIRS, _cut_cross_entropy, 0, "cut-cross-entropy",
        "cut_cross_entropy", gpu=True,
        outside=_half_only,
        remark="with filter_eps=None: its default drops small gradients; both directions apart",
    ),
    Variant(
        "Liger", PAIRS, _liger, 0, "liger-kernel", "liger_kernel", gpu=True,
        remark="fused linear cross-entropy; both directions apart",
    ),
    Variant(
        "memeff", PAIRS, _memeff, 0, "memeff", "memeff", gpu=True, outside=_memeff_range,
        remark="with stable=False; the temperature gets no gradient",
    ),
    Variant(
        "QuACK", PAIRS, _quack, 0, "quack-kernels", "quack", gpu=True, outside=_quack_range,
        remark="chunked linear cross-entropy; both directions apart",
    ),
    Variant(
        "siglip-kernel", ("siglip",), _siglip_kernel, 0, "siglip-kernel", "siglip_kernel",
        gpu=True,
    ),
)  # fmt: skip
