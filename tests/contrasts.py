"""Problems field by field, for tests of the raw operators of the contrast."""

import torch
from remembered import remembered
from torch import Tensor

from fastcl import reference
from fastcl._library import ops
from fastcl.contrast.problem import Problem


def fields(
    q,  # a matrix, or several
    k=(),
    *,
    scale: float = 1.0,
    logit_scale: Tensor | None = None,
    ids: tuple[Tensor | None, Tensor | None] | Tensor | None = None,
    own: Tensor | None = None,
    both: bool = False,
    positives_in: bool = True,
    unit: bool = True,
    normalize: bool | tuple[bool, bool, bool] = False,  # of q, k and own
    paired: bool = True,
    row_weight: Tensor | None = None,
    col_weight: Tensor | None = None,
    limit: Tensor | None = None,
    guide: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Problem:
    """A problem as it reaches an operator: nothing is checked."""
    q, k = ([x] if isinstance(x, Tensor) else list(x) for x in (q, k))
    row_ids, col_ids = ids if isinstance(ids, tuple) else (ids, None)
    divided = (normalize,) * 3 if isinstance(normalize, bool) else normalize
    return Problem(
        q, k, own, logit_scale, row_ids, col_ids, row_weight, col_weight, limit, *guide, scale,
        both, positives_in, unit, *divided, paired,
    )  # fmt: skip


def to(p: Problem, dtype: torch.dtype) -> Problem:
    """The same with rows of a dtype."""
    own = None if p.own is None else p.own.to(dtype)
    return p._replace(q=[x.to(dtype) for x in p.q], k=[x.to(dtype) for x in p.k], own=own)


def call(module, name: str, p: Problem, *rest):
    """An operator of `ops` or of `reference`, whose results nobody may write into."""
    if module is ops:
        return getattr(ops, name)(*p, *rest)
    return remembered(getattr(reference, name), p, *rest)


def assert_equals_the_reference(p: Problem, *needs: bool) -> None:
    """contrast_mean in float64. A logit of 3,000 is rounded by 3e-13, a gradient is 3,000 times a
    weight. The reference finds all there is, once for all needs."""
    ours = call(ops, "contrast_mean", p, *needs)
    every = True, not p.symmetric, p.own is not None, True
    expected = call(reference, "contrast_mean", p, *every)
    for x, y, need in zip(ours, expected, (True, True, *needs), strict=True):
        torch.testing.assert_close(x, y if need else y[:0], rtol=1e-9, atol=1e-9)


def results(statistics: Tensor) -> Tensor:
    """The lines of [4, n] that are results: the second is what rounding took."""
    return statistics[[0, 2, 3]]
