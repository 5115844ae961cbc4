"""The one problem under every contrast: rows, columns, and who is a positive of whom."""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _check


class Problem(NamedTuple):
    """Rows q against columns k with s_ij = scale * logit_scale * <q_i, k_j>.

    The fields are the first arguments of the raw operators, in this order, and those of the
    problem in csrc/kernels.h.
    """

    q: tuple[Tensor, ...]  # [n, d] in parts below each other
    k: tuple[Tensor, ...]  # [m, d] in parts; (): the rows themselves, and no row meets itself
    own: Tensor | None  # [n, d] one more positive per row; columns of the row's id are left out
    logit_scale: Tensor | None  # [] multiplies scale
    row_ids: Tensor | None  # [n] int64; None: no column is a positive
    col_ids: Tensor | None  # [m] int64; None: those of the rows
    row_weight: Tensor | None  # [n] of the rows' losses in the mean
    col_weight: Tensor | None  # [m] of the columns' losses, where both
    limit: Tensor | None  # [n] similarity above which a column is no negative of the row
    guide_q: Tensor | None  # [n, g] whose cosines with guide_k are held to the limit; None: q and k
    guide_k: Tensor | None  # [m, g]
    scale: float
    both: bool  # every column is contrasted with the rows too
    positives_in: bool  # positives are part of the denominator
    unit: bool  # all rows have length one at most, as they are or divided
    normalize_q: bool  # divide the rows by their length on their way into the products
    normalize_k: bool
    normalize_own: bool
    paired: bool  # every row has a positive; else one without counts as zero in the mean

    @property
    def symmetric(self) -> bool:
        return len(self.k) == 0  # Dynamo has no `not` of a tuple

    @property
    def rows(self) -> int:
        return sum([x.shape[0] for x in self.q])

    @property
    def columns(self) -> int:
        return sum([x.shape[0] for x in self.k or self.q])

    @property
    def width(self) -> int:
        return self.q[0].shape[1]

    @property
    def aside(self) -> bool:
        """No positive is among the columns."""
        return self.row_ids is None or self.own is not None

    @property
    def ids(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the rows and of the columns."""
        return self.row_ids, self.row_ids if self.col_ids is None else self.col_ids

    def finishes(self, need_q: bool, need_k: bool) -> bool:
        """Whether the forward leaves no more of the gradient than a multiplication: constant
        columns, none of them a positive."""
        return need_q and self.aside and not (need_k or self.symmetric or self.both)

    def rounded(self, dtype: torch.dtype | None) -> "Problem":
        """With its rows in a dtype, where one is given."""
        if dtype is None:
            return self
        q, k = (tuple(x.to(dtype) for x in side) for side in (self.q, self.k))
        return self._replace(q=q, k=k, own=None if self.own is None else self.own.to(dtype))

    def apart(self) -> tuple:
        """For a function that takes tensors one by one: all else in a tuple, own and logit_scale at
        1 and 2, the parts of q and k at the end."""
        return (len(self.q), *self[TENSORS:]), *self[2:TENSORS], *self.q, *self.k


TENSORS = Problem._fields.index("scale")  # the fields before hold tensors
_KINDS = {
    tuple[Tensor, ...]: "Tensor[]", Tensor | None: "Tensor?", float: "float", bool: "bool"
}  # fmt: skip
# The arguments of a raw operator, as its schema has them.
SCHEMA = ", ".join(f"{_KINDS[kind]} {name}" for name, kind in Problem.__annotations__.items())


def joined(options: tuple, *tensors: Tensor | None) -> Problem:
    """The problem of `Problem.apart`."""
    head, count = tensors[: TENSORS - 2], options[0]
    parts = tensors[TENSORS - 2 :]
    return Problem(parts[:count], parts[count:], *head, *options[1:])


def problem(
    q: Tensor | tuple[Tensor, ...],  # [n, d], or matrices below each other
    k: Tensor | None = None,  # [m, d]
    *,
    scale: float | Tensor,
    ids: tuple[Tensor, Tensor] | Tensor | None = None,
    diagonal: bool = False,
    own: Tensor | None = None,  # [n, d]
    both: bool = False,
    positives_in: bool = True,
    unit: bool = True,
    normalize: bool = True,
    normalize_k: bool | None = None,
    normalize_own: bool | None = None,
    paired: bool = True,
    row_weight: Tensor | None = None,  # [n]
    col_weight: Tensor | None = None,  # [m]
    limit: Tensor | None = None,  # [n]
    guide: tuple[Tensor, Tensor] | None = None,  # [n, g], [m, g]
) -> Problem:
    """A problem whose fields fit each other.

    Args:
        q: Rows `[n, d]`, or several matrices of the same width and dtype.
        k: Columns `[m, d]`. None contrasts the rows with each other, a row never with itself.
        scale: One over the temperature: a float, or a tensor of one element that receives a
            gradient.
        ids: int64 of the rows and of the columns, `([n], [m])`, or one `[n]` for both; equal ids
            make a column a positive of the row. None: no column is a positive.
        diagonal: In place of ids: column i is the positive of row i.
        own: `[n, d]`, one more positive per row, which is in the denominator. Columns with the
            row's id are then left out.
        both: Also contrast every column with all rows (CLIP).
        positives_in: False takes the positives out of the denominator (decoupled contrastive
            learning).
        unit: All rows have length one at most, as they are or divided. False costs a running
            maximum.
        normalize: Divide the rows by their length on the way in; False uses them as they are.
        normalize_k, normalize_own: The same of columns and own; None: as the rows.
        paired: Every row has a positive. False: a row may have none, and then counts as zero in
            the mean.
        row_weight, col_weight: Constants `[n]` and `[m]` that multiply the losses in the means;
            what has weight zero takes no part, whatever its loss.
        limit: A constant `[n]` for rows and columns of different kinds, in one direction: columns
            that are more similar to the row, and no positives, are left out.
        guide: Rows `[n, g]` and `[m, g]` of another model, constants, whose cosines take the place
            of the similarities that are held to the limit.

    Raises:
        ValueError: Shapes, devices or ids do not fit, or the scale is not finite and positive.
        TypeError: A dtype does not fit.
    """
    parts = (q,) if isinstance(q, Tensor) else tuple(q)
    if diagonal:
        ids, own, normalize_own = _diagonal(parts, k, both, normalize_k)
    row_ids, col_ids = ids if isinstance(ids, tuple) else (ids, ids)
    n, m = _checked(parts, k, own, scale, row_ids, col_ids, both)
    constants = (None,) * 5
    if not (row_weight is None and col_weight is None and limit is None and guide is None):
        constants = _constants(parts[0], n, m, k, both, row_weight, col_weight, limit, guide)
    learned = isinstance(scale, Tensor)
    # Dynamo takes no tensor twice; None stands for ids given already.
    col_ids = None if col_ids is None or col_ids is row_ids else col_ids.contiguous()
    rows = _apart([*parts, k, own])
    return Problem(
        tuple(rows[:-2]), () if k is None else (rows[-2],), rows[-1],
        (scale.reshape(()) if scale.dim() else scale) if learned else None,
        None if row_ids is None else row_ids.contiguous(), col_ids, *constants,
        1.0 if learned else float(scale), both, positives_in, unit, normalize,
        normalize if normalize_k is None or k is None else normalize_k,
        normalize if normalize_own is None else normalize_own, paired,
    )  # fmt: skip


def _apart(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """The tensors, contiguous, with a view for each that was there before."""
    found = []
    for i, x in enumerate(tensors):
        if x is not None:
            for y in tensors[:i]:
                if x is y:
                    x = x.view_as(x)
                    break
            x = x.contiguous()
        found.append(x)
    return found


def _diagonal(parts, k, both, normalize_k):
    """Ids of the rows and columns; of constant columns, own as well: with the positive apart, one
    pass yields loss and gradient."""
    ids = torch.arange(sum([x.shape[0] for x in parts]), device=parts[0].device)
    constant = not (both or (k.requires_grad and torch.is_grad_enabled()))
    return ids, k.detach() if constant else None, normalize_k


def _checked(parts, k, own, scale, row_ids, col_ids, both) -> tuple[int, int]:
    """The numbers of rows and columns."""
    _check.no_transform()
    first = parts[0]
    name = "q" if len(parts) == 1 else "q[0]"
    _check.rows(name, first)
    n, like = first.shape[0], (name, first)
    for i, x in enumerate(parts[1:], 1):
        _check.rows(f"q[{i}]", x, like)
        n += x.shape[0]
    m = n
    if k is not None:
        _check.rows("k", k, like)
        m = k.shape[0]
    if own is not None:
        _check.rows("own", own, like)
        if own.shape[0] != n:
            raise ValueError(f"own must have as many rows as q, {n}, got {own.shape[0]}")
    _check.scale(scale, first.device)
    if row_ids is not None or col_ids is not None:
        _check.ids(row_ids, col_ids, n, m, first.device)
    if both and (k is None or own is not None):
        raise ValueError("both must be False where k is None or own is given")
    return n, m


def _constants(first, n, m, k, both, row_weight, col_weight, limit, guide):
    """Weights and the limit in the accumulation dtype; a guide narrower than that as it is."""
    given = [("row_weight", row_weight, n), ("col_weight", col_weight, m), ("limit", limit, n)]
    for name, x, size in given:
        if x is not None:
            _check.vector(name, x, size, first.device)
    if col_weight is not None and not both:
        raise ValueError("col_weight must be None where columns have no loss of their own")
    if limit is not None and (k is None or both):
        raise ValueError("limit must be None where k is None or both")
    if guide is not None and limit is None:
        raise ValueError("guide must be None where there is no limit")
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    constants = [None if x is None else x.detach().to(wide).contiguous() for _, x, _ in given]
    if guide is None:
        return *constants, None, None
    for name, x, size in zip(("guide[0]", "guide[1]"), guide, (n, m), strict=True):
        _check.rows(name, x, ("guide[0]", guide[0]))
        if x.shape[0] != size or x.device != first.device:
            raise ValueError(
                f"{name} must have {size} rows on {first.device}, got {x.shape[0]} on {x.device}"
            )
    if torch.float64 in (wide, guide[0].dtype):
        guide = [x.to(wide) for x in guide]
    return *constants, *(x.detach().contiguous() for x in guide)
