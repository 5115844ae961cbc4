"""Launchers of the contrast at nested widths: every width by itself, added up.

One pass over all of them holds the products of the widest beside the weights of one width, in half
the tile that `contrast_mean` has, and writes every width's weights for its four products, against
three of each width with kept exponentials.
"""

import torch

from .. import reference
from ..contrast.problem import Problem
from . import contrast_common as common
from . import contrast_config as config
from .contrast import contrast_mean


def nested_contrast_mean(
    q, k, logit_scale, scale: float, widths, weights, need_q: bool, need_k: bool, need_scale: bool
):  # fmt: skip
    """`reference.nested_contrast_mean` without the n x n matrices."""
    given = q, k, logit_scale, scale, widths, weights
    if not config.supported(q):
        return reference.nested_contrast_mean(*given, need_q, need_k, need_scale)
    return _by_width(*given, need_q, need_k, need_scale)


def _by_width(q, k, logit_scale, scale, widths, weights, need_q, need_k, need_scale):
    ids = torch.arange(len(q), device=q.device)
    loss, slope = torch.zeros((), device=q.device), common.empty(q, int(need_scale)).zero_()
    dq, dk = (
        common.empty(q, len(q) if need else 0, q.shape[1]).zero_() for need in (need_q, need_k)
    )
    for width, weight in zip(widths, weights, strict=True):
        cut = [(x[:, :width].contiguous(),) for x in (q, k)]
        p = Problem(
            *cut, None, logit_scale, ids, ids, *[None] * 5, scale, False, True, True, True, True,
            False, True,
        )  # fmt: skip
        needs = need_q or need_scale, need_k, False, need_scale
        mean, _, rows, columns, _, slopes = contrast_mean(p, *needs)
        loss.add_(mean, alpha=weight)
        for total, part in ((dq[:, :width], rows), (dk[:, :width], columns), (slope, slopes)):
            if len(total):
                total.add_(part, alpha=weight)
    return loss, dq, dk, slope
