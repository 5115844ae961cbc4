"""Local against global features: Deep InfoMax, with three estimators of mutual information."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..contrast.sigmoid import sigmoid_sum
from ..reference import accumulate_dtype, no_autocast
from .rows import softplus


def _rows(
    local: Tensor,  # [n, d, l]
    summary: Tensor,  # [n, d, m]
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """Rows [n m, d], columns [n l, d], the ids of their samples, and own logits [n, m, l]."""
    _check.array("local", local, 3, "[n, d, locations]")
    _check.array("summary", summary, 3, "[n, d, vectors]", ("local", local))
    n, d = local.shape[:2]
    if summary.shape[:2] != (n, d):
        raise ValueError(f"summary must have shape [{n}, {d}, vectors], got {list(summary.shape)}")
    _check.at_least("local", local, 2, "a single sample has no negative")
    q, k = (x.transpose(1, 2).reshape(-1, d) for x in (summary, local))
    sample = torch.arange(n, device=local.device)
    ids = sample.repeat_interleave(summary.shape[2]), sample.repeat_interleave(local.shape[2])
    dtype = accumulate_dtype(local.dtype)
    with no_autocast(local):
        own = summary.transpose(1, 2).to(dtype) @ local.to(dtype)
    return q, k, ids, own


def _log_sums(q: Tensor, k: Tensor, ids: tuple[Tensor, Tensor]) -> Tensor:
    """Of every row with the columns of other samples, [n m]."""
    options: dict[str, Any] = {
        "scale": 1.0,
        "positives_in": False,
        "unit": False,
        "normalize": False,
    }
    result = row_losses(problem(q, k, ids=ids, **options))
    return result.loss + result.positive


def dim_jsd(
    local: Tensor,  # [n, d, locations]
    summary: Tensor,  # [n, d, vectors]
) -> Tensor:
    """Deep InfoMax loss with the Jensen-Shannon estimator.

    Equal to ``F.softplus(u[different]).mean() + F.softplus(-u[same]).mean() - 2 * log(2)`` with
    ``u`` the products of every summary vector with every location of the same and of different
    samples. Nothing is normalised and nothing scaled.

    Args:
        local: Features of every location `[n, d, locations]`.
        summary: Global features `[n, d, vectors]`, usually one vector per sample.

    Returns:
        A scalar; minus the estimate of the mutual information, up to a constant.

    Raises:
        ValueError: Shapes do not fit, or less than two samples.
        TypeError: Dtypes differ or are not floating point.

    Source: Hjelm et al. 2019, "Learning Deep Representations by Mutual Information Estimation and
    Maximization", equation 4.
    """
    q, k, ids, own = _rows(local, summary)
    n = local.shape[0]
    # All pairs with the weight of a negative, then what the few positives lack: no difference.
    pairs = problem(q, k, scale=1.0, ids=ids, normalize=False)
    everything = sigmoid_sum(pairs) / (own.numel() * (n - 1))
    return everything + softplus(-own).mean() * ((n - 2) / (n - 1)) - 2 * math.log(2)


def dim_nce(
    local: Tensor,  # [n, d, locations]
    summary: Tensor,  # [n, d, vectors]
    *,
    self_logit: float = -10.0,
) -> Tensor:
    """Deep InfoMax loss with the noise-contrastive estimator.

    Equal to the mean of ``-log_softmax(cat([u_il, u_others, full(locations, self_logit)]))[0]``
    over all summary vectors i and locations l of the same sample, where ``u_others`` are the
    products of i with the locations of all other samples.

    Args:
        local: Features of every location `[n, d, locations]`.
        summary: Global features `[n, d, vectors]`, usually one vector per sample.
        self_logit: What stands for the row's own locations among the negatives. The authors' code
            has -10, which counts where logits are small; -inf leaves them out.

    Returns:
        A scalar.

    Raises:
        ValueError: Shapes do not fit, less than two samples, or a self_logit that is NaN or inf.
        TypeError: Dtypes differ or are not floating point.

    Source: Hjelm et al. 2019, "Learning Deep Representations by Mutual Information Estimation and
    Maximization", equation 5.
    """
    if self_logit != -math.inf:
        _check.finite("self_logit", self_logit)
    q, k, ids, own = _rows(local, summary)
    others = _log_sums(q, k, ids).view(own.shape[0], own.shape[1], 1)
    if self_logit != -math.inf:
        others = torch.logaddexp(others, others.new_tensor(self_logit + math.log(own.shape[2])))
    return softplus(others - own).mean()


def dim_dv(
    local: Tensor,  # [n, d, locations]
    summary: Tensor,  # [n, d, vectors]
) -> Tensor:
    """Deep InfoMax loss with the Donsker-Varadhan estimator.

    Equal to ``u[different].exp().mean().log() - u[same].mean()`` with ``u`` as in `dim_jsd`.

    Args:
        local: Features of every location `[n, d, locations]`.
        summary: Global features `[n, d, vectors]`, usually one vector per sample.

    Returns:
        A scalar; minus the estimate of the mutual information.

    Raises:
        ValueError: Shapes do not fit, or less than two samples.
        TypeError: Dtypes differ or are not floating point.

    Source: Hjelm et al. 2019, "Learning Deep Representations by Mutual Information Estimation and
    Maximization", equation 3.
    """
    q, k, ids, own = _rows(local, summary)
    others = _log_sums(q, k, ids).logsumexp(0)
    pairs = own.numel() * (local.shape[0] - 1)
    return others - math.log(pairs) - own.mean()
