"""Operators that are others in a row, where no kernel does all of it at once.

The raw contrasts normalise their rows on the way: a kernel for one stores no unit rows, and the
gradients are those of the rows as they came. A kernel for all rounds of sinkhorn keeps what one
round leaves to the next.
"""

import torch
from torch import Tensor

from .reference import accumulate_dtype


def _unit(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.ops.fastcl.unit_rows_forward(parts)


def raw_info_nce_forward(
    q: list[Tensor],  # [n, d] in parts below each other
    k: list[Tensor],  # [m, d] in parts; []: the rows themselves, self left out
    scale: float,
    logit_scale: Tensor | None,  # [] multiplies scale
    row_ids: Tensor | None,  # [n] int64
    col_ids: Tensor | None,  # [m] int64
    both: bool,
    positives_in: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """info_nce_forward of the rows divided by their length.

    Returns:
        rows [4, n] and cols [4, m] of info_nce_forward, and the lengths [n] and [m], [0] where the
        columns are the rows.
    """
    z, q_lengths = _unit(q)
    y, k_lengths = _unit(k) if k else (z, q_lengths.new_empty(0))
    rows, cols, _, _ = torch.ops.fastcl.info_nce_forward(
        z, y, scale, logit_scale, row_ids, col_ids, None, None,
        not k, both, positives_in, True, False,
    )  # fmt: skip
    return rows, cols, q_lengths, k_lengths


def raw_info_nce_backward(
    grad_loss: Tensor | None,  # [n]
    grad_col_loss: Tensor | None,  # [m]
    q: list[Tensor],  # [n, d] in parts
    k: list[Tensor],  # [m, d] in parts, or []
    q_lengths: Tensor,  # [n]
    k_lengths: Tensor,  # [m], or [0]
    scale: float,
    logit_scale: Tensor | None,  # []
    row_ids: Tensor | None,  # [n]
    col_ids: Tensor | None,  # [m]
    rows: Tensor,  # [4, n] from the forward
    cols: Tensor,  # [4, m], or [4, 0]
    positives_in: bool,
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the losses of rows and columns to the rows before they were divided.

    Returns:
        dq [n, d], dk [m, d] in the accumulation dtype, [0, d] where not needed (where k is [], dq
        is the whole gradient), and [] the sum of <unit row of q, its gradient>, which is the
        derivative to the whole scale times the scale (twice that where k is []).
    """
    z = _unit(q)[0]
    y = _unit(k)[0] if k else z
    dz, dy = torch.ops.fastcl.info_nce_backward(
        grad_loss, None, grad_col_loss, None, z, y, scale, logit_scale, row_ids, col_ids,
        rows, cols, not k, positives_in, False, True, need_q, need_k,
    )  # fmt: skip
    dot = (z.to(dz.dtype) * dz).sum() if need_q or not k else dz.new_zeros(())
    if need_q or not k:
        dz = torch.ops.fastcl.unit_rows_backward(dz.to(z.dtype), q, q_lengths).to(dz.dtype)
    if need_k and k:
        dy = torch.ops.fastcl.unit_rows_backward(dy.to(y.dtype), k, k_lengths).to(dy.dtype)
    return dz, dy, dot


def info_nce_mean(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    scale: float,
    logit_scale: Tensor | None,  # [] multiplies scale
    row_ids: Tensor | None,  # [n] int64
    col_ids: Tensor | None,  # [m] int64
    extra: Tensor | None,  # [n] similarity of one more positive
    unit: bool,
    normalize: bool,
    need_q: bool,
    need_k: bool,
    both: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mean of the rows' losses of info_nce_forward, where both, of it and the mean of the
    columns', and its gradients to q and k; where normalize, of the rows divided by their length.

    Returns:
        loss [], rows [4, n] of info_nce_forward, dq [n, d] and dk [m, d] in the accumulation
        dtype, [0, d] where not needed, and [] the sum of <unit row of q, its gradient> where
        normalize and need_q, else 0.
    """
    z, q_lengths = _unit([q]) if normalize else (q, None)
    y, k_lengths = _unit([k]) if normalize else (k, None)
    shared = z, y, scale, logit_scale, row_ids, col_ids
    unit = unit or normalize
    aside = row_ids is None or extra is not None  # no positive among the columns
    frozen = aside and need_q and not (need_k or both)
    rows, cols, _, weighted = torch.ops.fastcl.info_nce_forward(
        *shared, extra, None, False, both, True, unit, frozen
    )
    if frozen:
        total = scale if logit_scale is None else scale * logit_scale.to(weighted.dtype)
        dz, dy = weighted * (total / len(q)), rows.new_empty(0, k.shape[1])
    else:
        share = 0.5 if both else 1.0
        grad = torch.full_like(rows[0], share / len(q))
        col_grad = torch.full_like(cols[0], share / len(k)) if both else None
        dz, dy = torch.ops.fastcl.info_nce_backward(
            grad, None, col_grad, None, *shared, rows, cols, False, True, extra is not None, unit,
            need_q, need_k,
        )  # fmt: skip
    dot = rows.new_zeros(())
    if normalize:
        dot = (z.to(dz.dtype) * dz).sum() if need_q else dot
        dz, dy = _raw(dz, q, q_lengths, need_q), _raw(dy, k, k_lengths, need_k)
    loss = (rows[0].mean() + cols[0].mean()) / 2 if both else rows[0].mean()
    return loss, rows, dz, dy, dot


def self_contrast_mean(
    parts: list[Tensor],  # [n, d] in parts below each other
    scale: float,
    ids: Tensor,  # [n] int64
    positives_in: bool,
    normalize: bool,
    paired: bool,
    need: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the losses of info_nce_forward where symmetric, and its gradient to the rows;
    where normalize, of the rows divided by their length. A row without a positive counts as zero;
    paired says that there is no such row.

    Returns:
        loss [], rows [4, n] of info_nce_forward, and dz [n, d] in the accumulation dtype, [0, d]
        where not needed.
    """
    z, lengths = _unit(parts) if normalize else (torch.cat(parts), None)
    shared = z, z, scale, None, ids, ids
    rows, cols, _, _ = torch.ops.fastcl.info_nce_forward(
        *shared, None, None, True, False, positives_in, True, False
    )
    grad = torch.full_like(rows[0], 1 / len(z))
    loss = rows[0]
    if not paired:
        alone = rows[3] == 0
        loss, grad = (torch.where(alone, 0, x) for x in (loss, grad))
    if not need:
        return loss.mean(), rows, rows.new_empty(0, z.shape[1])
    dz, _ = torch.ops.fastcl.info_nce_backward(
        grad, None, None, None, *shared, rows, cols, True, positives_in, False, True, True, False
    )
    if normalize:
        dz = torch.ops.fastcl.unit_rows_backward(dz.to(z.dtype), parts, lengths).to(dz.dtype)
    return loss.mean(), rows, dz


def frozen_contrast_mean(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    columns: Tensor,  # [m, d]
    scale: float,
    row_ids: Tensor | None,  # [n] int64
    col_ids: Tensor | None,  # [m] int64
    normalize: bool,
    normalize_key: bool,
    need: bool,
) -> tuple[Tensor, Tensor]:
    """The mean of the losses of info_nce_forward with the key's similarity as extra, and its
    gradient to the query, before it was divided by its length where normalize; key and columns
    are constants.

    Returns:
        loss [] and dquery [n, d] in the accumulation dtype, [0, d] where not needed.
    """
    q, lengths = _unit([query]) if normalize else (query, None)
    k = _unit([key])[0] if normalize_key else key
    dtype = accumulate_dtype(q.dtype)
    k = k.to(dtype)
    own = (q.to(dtype) * k).sum(1)
    loss, rows, dq, _, _ = torch.ops.fastcl.info_nce_mean(
        q, columns, scale, None, row_ids, col_ids, own, True, False, need, False
    )
    if need:
        pull = torch.expm1(-rows[0]) * (scale / len(q))  # p - 1 of the key, without cancellation
        dq = torch.addcmul(dq, pull[:, None], k)
        if normalize:
            dq = _raw(dq, query, lengths, True)
    return loss, dq


def raw_sigmoid_contrast(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    scale: float,
    logit_scale: Tensor | None,  # [] multiplies scale
    bias: float,
    logit_bias: Tensor | None,  # [] added to bias
    row_ids: Tensor | None,  # [n] int64
    col_ids: Tensor | None,  # [m] int64
    need_q: bool,
    need_k: bool,
    positives_in: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """sigmoid_contrast of the rows divided by their length.

    Returns:
        What sigmoid_contrast returns; dq and dk are the gradients of the rows before the division.
    """
    (z, q_lengths), (y, k_lengths) = _unit([q]), _unit([k])
    loss, dz, dy, sums = torch.ops.fastcl.sigmoid_contrast(
        z, y, scale, logit_scale, bias, logit_bias, row_ids, col_ids, need_q, need_k, positives_in
    )
    return loss, _raw(dz, q, q_lengths, need_q), _raw(dy, k, k_lengths, need_k), sums


def _raw(grad: Tensor, x: Tensor, lengths: Tensor, needed: bool) -> Tensor:
    """The gradient of unit rows as that of x."""
    if not needed:
        return grad
    return torch.ops.fastcl.unit_rows_backward(grad.to(x.dtype), [x], lengths).to(grad.dtype)


def sinkhorn(
    scores: Tensor,  # [n, m]
    older: Tensor | None,  # [r, m] rows that take part and are not assigned
    scale: float,
    iterations: int,  # 1 or more
) -> Tensor:
    """The assignment [n, m] of the scores, in the accumulation dtype, after so many rounds."""
    known = scores if older is None else torch.cat([scores, older])
    potential = -torch.ops.fastcl.sinkhorn_columns(known, scale)
    for _ in range(iterations - 1):
        masses = torch.ops.fastcl.sinkhorn_masses(known, scale, potential)
        potential = potential - masses.log()
    return torch.ops.fastcl.sinkhorn_assign(scores, scale, potential)
