"""The losses over the rows of all ranks.

Each is its namesake in `fastcl.functional` on the rows of all ranks in rank order: the value is
that of one process with the global batch, the same on every rank, and gradients averaged over the
ranks (DistributedDataParallel, FSDP) are those of one process. The gradient of a scale or a bias
is exact on every rank already; averaging leaves it. In one process they are their namesakes.

Arguments beyond those of the namesake:
    mode: "gather" holds the columns of all ranks in memory, "ring" a block of them at a time.
    group: The ranks that take part; None: all.
    equal: Every rank has as many rows: saves exchanging the counts, for which the host waits.
        Wrong where they differ.

Every rank must call the function and run its backward, and scale the result alike. Without
`equal`, an argument that does not fit on one rank raises on all of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from .. import _check, functional
from ..functional import unit_rows
from ._blocks import Plan
from ._contrast import contrast
from ._plan import agree, global_ids, global_mean, mean
from ._sigmoid import sigmoid_contrast


def info_nce(
    query: Tensor,  # [b, d]
    key: Tensor,  # [b, d]
    *,
    temperature: float = 0.1,
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """InfoNCE of every query against the keys of all ranks.

    Equal to ``functional.info_nce(gather(query), gather(key))``.

    Arguments: those of `functional.info_nce` without negatives and reduction, and the module's.
    """

    def check() -> None:
        _check.pairs("key", key, "query", query)
        _check.positive("temperature", temperature)

    plan = agree("query", query, mode, group, equal, check)
    if plan is None:
        return functional.info_nce(query, key, temperature=temperature, normalize=normalize)
    q, k = (unit_rows(query), unit_rows(key)) if normalize else (query, key)
    ids = global_ids(plan, q.device)
    loss, _, _ = contrast(q, k, ids, plan, scale=1 / temperature)
    return global_mean(loss, plan)


def clip(
    image: Tensor,  # [b, d]
    text: Tensor,  # [b, d]
    logit_scale: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [b] int64
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """CLIP loss over the pairs of all ranks.

    Equal to ``functional.clip(gather(image), gather(text), logit_scale)``.

    Arguments: those of `functional.clip`, ids being comparable between ranks, and the module's.
    """

    def check() -> None:
        _check.pairs("text", text, "image", image)
        _check.contrast(image, text, logit_scale, ids, ids, None, None, False, True)

    plan = agree("image", image, mode, group, equal, check)
    if plan is None:
        return functional.clip(image, text, logit_scale, ids=ids, normalize=normalize)
    q, k = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
    ids = global_ids(plan, q.device) if ids is None else ids
    loss, _, col_loss = contrast(q, k, ids, plan, scale=logit_scale, both=True)
    return global_mean((loss + col_loss) / 2, plan)


def siglip(
    image: Tensor,  # [b, d]
    text: Tensor,  # [b, d]
    logit_scale: Tensor | float,  # []
    logit_bias: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [b] int64
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """SigLIP loss over the pairs of all ranks.

    Equal to ``functional.siglip(gather(image), gather(text), logit_scale, logit_bias)``.

    Arguments: those of `functional.siglip`, ids being comparable between ranks, and the module's.
    """

    def check() -> None:
        _check.pairs("text", text, "image", image)
        _check.contrast(image, text, logit_scale, ids, ids, None, None, False, False)
        if isinstance(logit_bias, Tensor):
            _check.scalar("logit_bias", logit_bias, image.device)
        else:
            _check.finite("logit_bias", logit_bias)

    plan = agree("image", image, mode, group, equal, check)
    if plan is None:
        return functional.siglip(image, text, logit_scale, logit_bias, ids=ids, normalize=normalize)
    q, k = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
    ids = global_ids(plan, q.device) if ids is None else ids
    loss = sigmoid_contrast(q, k, ids, plan, scale=logit_scale, bias=logit_bias)
    return loss / sum(plan.counts)


def _agree_on_views(
    z0: Tensor,
    z1: Tensor,
    temperature: float,
    mode: str,
    group: ProcessGroup | None,
    equal: bool,
) -> Plan | None:
    def check() -> None:
        _check.pairs("z1", z1, "z0", z0)
        _check.positive("temperature", temperature)

    return agree("z0", z0, mode, group, equal, check)


def _losses(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    plan: Plan,
    temperature: float,
    normalize: bool,
    positives_in: bool = True,
) -> Tensor:
    """The loss of every row against the rows of both views of all ranks, [2, b]."""
    z = unit_rows(z0, z1) if normalize else torch.cat([z0, z1])
    ids = global_ids(plan, z.device).repeat(2)
    twice = plan._replace(counts=[2 * n for n in plan.counts])
    loss, _, _ = contrast(z, None, ids, twice, scale=1 / temperature, positives_in=positives_in)
    return loss.view(2, -1)


def nt_xent(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    *,
    temperature: float = 0.5,
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """NT-Xent over the views of all ranks.

    Equal to ``functional.nt_xent(gather(z0), gather(z1))``.

    Arguments: those of `functional.nt_xent` without ids and duplicates, and the module's.
    """
    plan = _agree_on_views(z0, z1, temperature, mode, group, equal)
    if plan is None:
        return functional.nt_xent(z0, z1, temperature=temperature, normalize=normalize)
    return global_mean(_losses(z0, z1, plan, temperature, normalize).mean(0), plan)


def dcl(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    *,
    temperature: float = 0.1,
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """Decoupled contrastive loss over the views of all ranks.

    Equal to ``functional.dcl(gather(z0), gather(z1))``.

    Arguments: those of `functional.dcl`, and the module's.
    """
    plan = _agree_on_views(z0, z1, temperature, mode, group, equal)
    if plan is None:
        return functional.dcl(z0, z1, temperature=temperature, normalize=normalize)
    loss = _losses(z0, z1, plan, temperature, normalize, positives_in=False)
    return global_mean(loss.mean(0), plan)


def flat_nce(
    z0: Tensor,  # [b, d]
    z1: Tensor,  # [b, d]
    *,
    temperature: float = 0.1,
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """FlatNCE over the views of all ranks.

    Equal to ``functional.flat_nce(gather(z0), gather(z1))``.

    Arguments: those of `functional.flat_nce`, and the module's.
    """
    plan = _agree_on_views(z0, z1, temperature, mode, group, equal)
    if plan is None:
        return functional.flat_nce(z0, z1, temperature=temperature, normalize=normalize)
    loss = _losses(z0, z1, plan, temperature, normalize, positives_in=False)
    loss = -F.logsigmoid(-loss).detach() + loss - loss.detach()
    return global_mean(loss.mean(0), plan)


def sup_con(
    z: Tensor,  # [b, d]
    labels: Tensor,  # [b] int64
    *,
    temperature: float = 0.07,
    base_temperature: float | None = None,
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """Supervised contrastive loss over the rows of all ranks.

    Equal to ``functional.sup_con(gather(z), gather(labels))``.

    Arguments: those of `functional.sup_con`, labels meaning the same on all ranks, and the
    module's.
    """

    def check() -> None:
        _check.rows("z", z)
        _check.vector("labels", labels, z.shape[0], z.device, integer=True)
        _check.positive("temperature", temperature)
        if base_temperature is not None:
            _check.positive("base_temperature", base_temperature)

    plan = agree("z", z, mode, group, equal, check)
    if plan is None:
        return functional.sup_con(
            z, labels, temperature=temperature, base_temperature=base_temperature,
            normalize=normalize,
        )  # fmt: skip
    rows = unit_rows(z) if normalize else z
    loss, count, _ = contrast(rows, None, labels, plan, scale=1 / temperature)
    factor = 1.0 if base_temperature is None else temperature / base_temperature
    return global_mean(torch.where(count > 0, loss, 0) * factor, plan)


def moco(
    query: Tensor,  # [b, d]
    key: Tensor,  # [b, d]
    queue: Tensor,  # [K, d] unit rows, the same on every rank
    *,
    temperature: float = 0.07,
    normalize: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    """MoCo loss of the queries of all ranks against a queue that all ranks share.

    Equal to ``functional.moco(gather(query), gather(key), queue)``. Only the mean is exchanged.

    Arguments: those of `functional.moco`, and the module's group.
    """
    loss = functional.moco(query, key, queue, temperature=temperature, normalize=normalize)
    return mean(loss, rows=query.shape[0], group=group)
