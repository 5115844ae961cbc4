"""Several positives per row, any of which may be the right one: MIL-NCE."""

from typing import Any

import torch
from torch import Tensor

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..reference import accumulate_dtype, no_autocast
from .rows import softplus
from .unit_rows import unit_rows


def mil_nce(
    query: Tensor,  # [n, d]
    keys: Tensor,  # [n, p, d]
    *,
    temperature: float | Tensor,  # []
    normalize: bool = True,
) -> Tensor:
    """MIL-NCE: every query against a bag of keys of its own and the keys of all others.

    Equal to ``-(s[own].logsumexp(1) - s.logsumexp(1)).mean()`` with ``s = unit_rows(query) @
    unit_rows(keys.flatten(0, 1)).T / temperature``, of which own are the p columns of the row.

    Args:
        query: `[n, d]`.
        keys: `[n, p, d]`; the p keys of row i are the positives of query i.
        temperature: Positive; divides the similarities. A tensor of one element receives a
            gradient.
        normalize: False where all rows have unit length already.

    Returns:
        The mean over queries, a scalar.

    Raises:
        ValueError: Shapes do not fit, an empty batch, or a temperature that is not positive.
        TypeError: Dtypes differ or are not floating point.

    Source: Miech et al. 2020, "End-to-End Learning of Visual Representations from Uncurated
    Instructional Videos", equation 1.
    """
    _check.rows("query", query)
    _check.array("keys", keys, 3, "[rows, positives, width]", ("query", query))
    if len(keys) != len(query) or keys.shape[2] != query.shape[1]:
        raise ValueError(
            f"keys must have shape [{len(query)}, positives, {query.shape[1]}], "
            f"got {list(keys.shape)}"
        )
    scale = _check.inverse("temperature", temperature, query.device)
    n, p, d = keys.shape
    k = keys.reshape(n * p, d)
    q, k = (unit_rows(query), unit_rows(k)) if normalize else (query, k)
    rows = torch.arange(n, device=q.device)
    ids = rows, rows.repeat_interleave(p)
    options: dict[str, Any] = {
        "scale": scale,
        "ids": ids,
        "positives_in": False,
        "normalize": False,
    }
    others = row_losses(problem(q, k, **options))
    dtype = accumulate_dtype(q.dtype)
    with no_autocast(q):
        own = torch.einsum("nd,npd->np", q.to(dtype), k.view(n, p, d).to(dtype)) * scale
    return softplus(others.loss + others.positive - own.logsumexp(1)).mean()
