"""Rows with each other, over all ranks: NT-Xent, its decoupled variants, SupCon."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from .. import _check, functional
from ..functional import row_products, unit_rows
from ..functional.rows import softplus
from ._blocks import Plan
from ._contrast import contrast
from ._plan import agree, global_ids, global_mean, shared


def _agree_on_views(
    z0: Tensor,
    z1: Tensor,
    temperature: float | Tensor,  # []
    normalize: bool,
    mode: str,
    group: ProcessGroup | None,
    equal: bool,
    ids: Tensor | None = None,
    duplicates: str = "positive",
) -> Plan | None:
    def check() -> None:
        _check.pairs("z1", z1, "z0", z0)
        _check.inverse("temperature", temperature, z0.device)
        _check.duplicates(ids, duplicates, z0)

    return agree(
        "z0", z0, mode, group, equal, check, {"z0": z0, "z1": z1, "temperature": temperature},
        {"temperature": temperature, "normalize": normalize, "duplicates": duplicates}, ids,
    )  # fmt: skip


def _losses(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    plan: Plan,
    temperature: float | Tensor,  # []
    normalize: bool,
    ids: Tensor | None = None,  # [b]
    positives_in: bool = True,
    ignore: bool = False,
) -> Tensor:
    """The loss of a pair's two rows against the rows of both views of all ranks, [2, b]."""
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    ids = (global_ids(plan, z.device) if ids is None else ids).repeat(2)
    twice = plan._replace(counts=[2 * n for n in plan.counts])
    scale = 1 / temperature
    loss, _, _ = contrast(
        z, None, ids, twice, scale=scale, positives_in=positives_in, negatives_only=ignore
    )
    if ignore:  # the other view comes back
        loss = softplus(loss - shared(scale, plan) * row_products(z, z.roll(z0.shape[0], 0)))
    return loss.view(2, -1)


def nt_xent(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    *,
    temperature: float | Tensor = 0.5,  # []
    ids: Tensor | None = None,  # [b] int64
    duplicates: str = "positive",
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """NT-Xent over the views of all ranks.

    Equal to ``functional.nt_xent(gather(z0), gather(z1))``.

    Arguments: those of `functional.nt_xent`, ids meaning the same on all ranks, and the
    package's.
    """
    plan = _agree_on_views(z0, z1, temperature, normalize, mode, group, equal, ids, duplicates)
    if plan is None:
        return functional.nt_xent(
            z0, z1, temperature=temperature, ids=ids, duplicates=duplicates, normalize=normalize
        )
    ignore = ids is not None and duplicates == "ignore"
    loss = _losses(z0, z1, plan, temperature, normalize, ids, ignore=ignore)
    return global_mean(loss.mean(0), plan)


def dcl(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    *,
    temperature: float | Tensor = 0.1,  # []
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """Decoupled contrastive loss over the views of all ranks.

    Equal to ``functional.dcl(gather(z0), gather(z1))``.

    Arguments: those of `functional.dcl`, and the package's.
    """
    plan = _agree_on_views(z0, z1, temperature, normalize, mode, group, equal)
    if plan is None:
        return functional.dcl(z0, z1, temperature=temperature, normalize=normalize)
    loss = _losses(z0, z1, plan, temperature, normalize, positives_in=False)
    return global_mean(loss.mean(0), plan)


def flat_nce(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    *,
    temperature: float | Tensor = 0.1,  # []
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """FlatNCE over the views of all ranks.

    Equal to ``functional.flat_nce(gather(z0), gather(z1))``.

    Arguments: those of `functional.flat_nce`, and the package's.
    """
    plan = _agree_on_views(z0, z1, temperature, normalize, mode, group, equal)
    if plan is None:
        return functional.flat_nce(z0, z1, temperature=temperature, normalize=normalize)
    loss = _losses(z0, z1, plan, temperature, normalize, positives_in=False)
    loss = -F.logsigmoid(-loss).detach() + loss - loss.detach()
    return global_mean(loss.mean(0), plan)


def sup_con(
    z: Tensor,  # [b, d]
    labels: Tensor,  # [b] int64
    *,
    temperature: float | Tensor = 0.07,  # []
    base_temperature: float | None = None,
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """Supervised contrastive loss over the rows of all ranks.

    Equal to ``functional.sup_con(gather(z), gather(labels))``.

    Arguments: those of `functional.sup_con`, labels meaning the same on all ranks, and the
    package's.
    """

    def check() -> None:
        _check.rows("z", z)
        _check.vector("labels", labels, z.shape[0], z.device, integer=True)
        _check.inverse("temperature", temperature, z.device)
        if base_temperature is not None:
            _check.positive("base_temperature", base_temperature)

    plan = agree(
        "z", z, mode, group, equal, check, {"z": z, "temperature": temperature},
        {
            "temperature": temperature, "base_temperature": base_temperature,
            "normalize": normalize,
        },
    )  # fmt: skip
    if plan is None:
        return functional.sup_con(
            z, labels, temperature=temperature, base_temperature=base_temperature,
            normalize=normalize,
        )  # fmt: skip
    rows = unit_rows(z) if normalize else z
    loss, count, _ = contrast(rows, None, labels, plan, scale=1 / temperature)
    loss = torch.where(count > 0, loss, 0)
    if base_temperature is not None:
        loss = loss * (shared(temperature, plan) / base_temperature)
    return global_mean(loss, plan)
