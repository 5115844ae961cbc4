"""Backward of the softmax contrast of raw rows: what the composite does, in fewer launches.

The gradient of the unit rows stays in float32 until it is that of the raw ones, and the pass that
makes it so has the products for the gradient of the scale on its way.
"""

import torch

from .. import composite
from . import info_nce_common as common
from . import info_nce_config as config
from .info_nce_gradient import info_nce_backward
from .unit_rows import project, unit_rows_forward


def raw_info_nce_backward(
    grad_loss, grad_col_loss, q, k, q_lengths, k_lengths, scale, logit_scale, row_ids, col_ids,
    rows, cols, positives_in, need_q, need_k,
):  # fmt: skip
    """`composite.raw_info_nce_backward`."""
    if not config.supported(q[0]):
        return composite.raw_info_nce_backward(
            grad_loss, grad_col_loss, q, k, q_lengths, k_lengths, scale, logit_scale,
            row_ids, col_ids, rows, cols, positives_in, need_q, need_k,
        )  # fmt: skip
    z = unit_rows_forward(q)[0]
    y = unit_rows_forward(k)[0] if k else z
    dz, dy = info_nce_backward(
        grad_loss, None, grad_col_loss, None, z, y, scale, logit_scale, row_ids, col_ids,
        rows, cols, not k, positives_in, False, True, need_q, need_k,
    )  # fmt: skip
    if need_q or not k:
        dots = common.empty(dz, len(dz))
        dz, dot = project(dz, q, q_lengths, dots), dots.sum()
    else:
        dot = torch.zeros((), device=dz.device)
    if need_k and k:
        dy = project(dy, k, k_lengths, None)
    return dz, dy, dot
