"""Rows with a row of their own, over all ranks: InfoNCE, CLIP, SigLIP, MoCo."""

from torch import Tensor
from torch.distributed import ProcessGroup

from .. import _check, functional
from ..functional import row_products, unit_rows
from ..functional.moco import check_moco
from ..functional.rows import softplus
from ._contrast import contrast
from ._mean import mean_contrast
from ._plan import agree, global_ids, global_mean, mean_of_parts, shared
from ._sigmoid import sigmoid_contrast


def info_nce(
    query: Tensor,  # [b, d]
    key: Tensor,  # [b, d]
    *,
    temperature: float | Tensor = 0.1,  # []
    ids: Tensor | None = None,  # [b] int64
    duplicates: str = "positive",
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """InfoNCE of every query against the keys of all ranks.

    Equal to ``functional.info_nce(gather(query), gather(key))``.

    Arguments: those of `functional.info_nce` without negatives, reduction and label_smoothing, ids
    meaning the same on all ranks, and the package's.
    """

    def check() -> None:
        _check.pairs("key", key, "query", query)
        _check.inverse("temperature", temperature, query.device)
        _check.duplicates(ids, duplicates, query)

    plan = agree(
        "query", query, mode, group, equal, check,
        {"query": query, "key": key, "temperature": temperature},
        {"temperature": temperature, "normalize": normalize, "duplicates": duplicates}, ids,
    )  # fmt: skip
    if plan is None:
        return functional.info_nce(
            query, key, temperature=temperature, ids=ids, duplicates=duplicates,
            normalize=normalize,
        )  # fmt: skip
    q, k = (unit_rows(query), unit_rows(key)) if normalize else (query, key)
    scale = 1 / temperature
    if ids is not None and duplicates == "ignore":
        lse, _, _ = contrast(q, k, ids, plan, scale=scale, negatives_only=True)
        return global_mean(softplus(lse - shared(scale, plan) * row_products(q, k)), plan)
    ids = global_ids(plan, q.device) if ids is None else ids
    if plan.mode == "gather" and not isinstance(scale, Tensor):
        return mean_contrast(q, k, ids, plan, scale=scale)
    return global_mean(contrast(q, k, ids, plan, scale=scale)[0], plan)


def clip(
    image: Tensor,  # [b, d]
    text: Tensor,  # [b, d]
    logit_scale: Tensor | float,  # []
    *,
    ids: Tensor | None = None,  # [b] int64
    duplicates: str = "positive",
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """CLIP loss over the pairs of all ranks.

    Equal to ``functional.clip(gather(image), gather(text), logit_scale)``.

    Arguments: those of `functional.clip` without label_smoothing, ids meaning the same on all
    ranks, and the package's.
    """

    def check() -> None:
        _check.pairs("text", text, "image", image)
        _check.scale(logit_scale, image.device)
        _check.ids(ids, ids, len(image), len(text), image.device)
        _check.one_of("duplicates", duplicates, _check.DUPLICATES)

    plan = agree(
        "image", image, mode, group, equal, check,
        {"image": image, "text": text, "logit_scale": logit_scale},
        {"logit_scale": logit_scale, "normalize": normalize, "duplicates": duplicates}, ids,
    )  # fmt: skip
    if plan is None:
        return functional.clip(
            image, text, logit_scale, ids=ids, duplicates=duplicates, normalize=normalize
        )
    q, k = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
    if ids is not None and duplicates == "ignore":
        rows, _, cols = contrast(q, k, ids, plan, scale=logit_scale, both=True, negatives_only=True)
        own = shared(logit_scale, plan) * row_products(q, k)
        return global_mean((softplus(rows - own) + softplus(cols - own)) / 2, plan)
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
    duplicates: str = "positive",
    normalize: bool = True,
    mode: str = "gather",
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """SigLIP loss over the pairs of all ranks.

    Equal to ``functional.siglip(gather(image), gather(text), logit_scale, logit_bias)``.

    Arguments: those of `functional.siglip`, ids meaning the same on all ranks, and the package's.
    """

    def check() -> None:
        _check.pairs("text", text, "image", image)
        _check.scale(logit_scale, image.device)
        _check.ids(ids, ids, len(image), len(text), image.device)
        _check.one_of("duplicates", duplicates, _check.DUPLICATES)
        if isinstance(logit_bias, Tensor):
            _check.scalar("logit_bias", logit_bias, image.device)
        else:
            _check.finite("logit_bias", logit_bias)

    learned = {"logit_scale": logit_scale, "logit_bias": logit_bias}
    plan = agree(
        "image", image, mode, group, equal, check, {"image": image, "text": text, **learned},
        {**learned, "normalize": normalize, "duplicates": duplicates}, ids,
    )  # fmt: skip
    if plan is None:
        return functional.siglip(
            image, text, logit_scale, logit_bias, ids=ids, duplicates=duplicates,
            normalize=normalize,
        )  # fmt: skip
    q, k = (unit_rows(image), unit_rows(text)) if normalize else (image, text)
    ignore = ids is not None and duplicates == "ignore"
    ids = global_ids(plan, q.device) if ids is None else ids
    loss = sigmoid_contrast(
        q, k, ids, plan, scale=logit_scale, bias=logit_bias, positives_in=not ignore
    ) / sum(plan.counts)
    if not ignore:
        return loss
    own = shared(logit_scale, plan) * row_products(q, k) + shared(logit_bias, plan)
    return loss + global_mean(softplus(-own), plan)


def moco(
    query: Tensor,  # [b, d]
    key: Tensor,  # [b, d]
    queue: Tensor,  # [K, d] unit rows, the same on every rank
    *,
    temperature: float | Tensor = 0.07,  # [] or [b]
    ids: Tensor | None = None,  # [b] int64
    queue_ids: Tensor | None = None,  # [K] int64, the same on every rank
    duplicates: str = "positive",
    normalize: bool = True,
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """MoCo loss of the queries of all ranks against a queue that all ranks share.

    Equal to ``functional.moco(gather(query), gather(key), queue)``. Only the mean is exchanged.

    Arguments: those of `functional.moco`, and the package's group and equal.
    """

    several = isinstance(temperature, Tensor) and temperature.numel() != 1

    def check() -> None:
        check_moco(query, key, queue, temperature, ids, queue_ids, duplicates)

    plan = agree(
        "query", query, "gather", group, equal, check,
        {"query": query, "temperature": temperature},
        {
            "temperature": temperature if not several else None,
            "normalize": normalize, "duplicates": duplicates,
            "queue rows": queue.shape[0] if isinstance(queue, Tensor) else None,
        }, ids,
    )  # fmt: skip
    heat = temperature if plan is None or several else shared(temperature, plan)
    loss = functional.moco(
        query, key, queue, temperature=heat, ids=ids, queue_ids=queue_ids,
        duplicates=duplicates, normalize=normalize,
    )  # fmt: skip
    return loss if plan is None else mean_of_parts(loss, query.shape[0], plan, group, equal)
