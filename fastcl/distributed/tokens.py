"""Late interaction over all ranks."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.functional import pad

from .. import functional
from .._ranks import gather, gather_with_gradient
from ..functional.max_sim import check_max_sim
from ._blocks import Plan
from ._plan import agree, mean_of_parts, shared


def max_sim(
    query: Tensor,  # [b, Lq, d]
    document: Tensor,  # [m, Ld, d]
    query_mask: Tensor | None = None,  # [b, Lq]
    document_mask: Tensor | None = None,  # [m, Ld]
    hard: Tensor | None = None,  # [b, h, Lh, d]
    hard_mask: Tensor | None = None,  # [b, h, Lh]
    *,
    temperature: float | Tensor = 0.02,  # []
    normalize: bool = True,
    group: ProcessGroup | None = None,
    equal: bool = False,
) -> Tensor:
    """Late interaction of every query with the documents of all ranks.

    Equal to ``functional.max_sim(gather(query), gather(document), ...)``, where documents beyond
    one per query come last.

    A rank contrasts its own queries; the documents of all ranks are gathered, the shorter ones
    padded. The number of documents and all lengths may differ between ranks, and so may whether
    there are masks and hard ones, which no other rank's queries meet.

    Arguments: those of `functional.max_sim`, and the package's but for mode.
    """

    def check() -> None:
        masks = query_mask, document_mask, hard_mask
        check_max_sim(query, document, hard, masks, temperature)

    rows = isinstance(query, Tensor) and query.dim() == 3
    plan = agree(
        "query", query[:, :1].flatten(1) if rows else query, "gather", group, equal, check,
        {"query": query, "document": document, "temperature": temperature},
        {"temperature": temperature, "normalize": normalize},
    )  # fmt: skip
    if plan is not None:
        document, document_mask = _everyone(document, document_mask, plan, group, equal)
        temperature = shared(temperature, plan)
    loss = functional.max_sim(
        query, document, query_mask, document_mask, hard, hard_mask,
        temperature=temperature, normalize=normalize,
    )  # fmt: skip
    return loss if plan is None else mean_of_parts(loss, query.shape[0], plan, group, equal)


def _everyone(
    document: Tensor,  # [m, Ld, d]
    mask: Tensor | None,  # [m, Ld]
    plan: Plan,
    group: ProcessGroup | None,
    equal: bool,
) -> tuple[Tensor, Tensor | None]:
    """The documents of all ranks and where they have tokens, this rank's first."""
    ranks, (items, length) = plan.ranks, document.shape[:2]
    if equal:
        before = items * ranks.rank
    else:
        found = ranks.share([items, length, mask is not None], document.device)
        before = sum(own for own, *_ in found[: ranks.rank])
        longest = max(own for _, own, _ in found)
        if mask is None and any(given or own < longest for _, own, given in found):
            mask = document.new_ones(items, length, dtype=torch.bool)
        document = pad(document, (0, 0, 0, longest - length))
        mask = pad(mask, (0, longest - length)) if mask is not None else None
    document = gather_with_gradient(document, equal=equal, group=group).roll(-before, 0)
    if mask is None:
        return document, None
    # As numbers: not every backend sends bool.
    return document, gather(mask.byte(), equal=equal, group=group).bool().roll(-before, 0)
