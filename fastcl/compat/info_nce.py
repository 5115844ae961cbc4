"""info-nce-pytorch: its loss as a class and as a function. Mimics version 0.1.4."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import info_nce as _info_nce
from ._common import in_dtype_of, several, signed_inverse, times

__all__ = ["InfoNCE", "info_nce"]


class InfoNCE(nn.Module):
    """InfoNCE of every query against its key and the negatives; see `info_nce`."""

    def __init__(
        self,
        temperature: float = 0.1,
        reduction: str = "mean",
        negative_mode: str = "unpaired",
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.reduction = reduction
        self.negative_mode = negative_mode

    def forward(
        self,
        query: Tensor,  # [n, d]
        positive_key: Tensor,  # [n, d]
        negative_keys: Tensor | None = None,  # [m, d], or [n, m, d] where paired
    ) -> Tensor:
        """A scalar, or `[n]` for reduction "none"."""
        return info_nce(
            query,
            positive_key,
            negative_keys,
            temperature=self.temperature,
            reduction=self.reduction,
            negative_mode=self.negative_mode,
        )


def info_nce(
    query: Tensor,  # [n, d]
    positive_key: Tensor,  # [n, d]
    negative_keys: Tensor | None = None,  # [m, d], or [n, m, d] where paired
    temperature: float | Tensor = 0.1,
    reduction: str = "mean",
    negative_mode: str = "unpaired",
) -> Tensor:
    """InfoNCE of every query against its key and the negatives; rows are normalised here.

    Equal to info_nce.info_nce. Without negative_keys the other keys are the negatives; with them
    the other keys are not used. A tensor as temperature receives a gradient; several numbers, one
    for every query or key, form the logits.

    Returns:
        A scalar, or `[n]` for reduction "none", in the dtype of query.

    Raises:
        ValueError: Shapes do not fit, or an unknown reduction or mode.
    """
    _check(query, positive_key, negative_keys, negative_mode)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    mode = "unpaired" if negative_keys is None else negative_mode
    if several(temperature):
        logits, labels = _logits(query, positive_key, negative_keys, mode)
        return F.cross_entropy(logits / temperature, labels, reduction=reduction)
    if not isinstance(temperature, Tensor):
        temperature = float(temperature)
    sign, _ = signed_inverse(temperature, query.device)
    loss = _info_nce(
        times(sign, query),
        positive_key,
        negative_keys,
        temperature=sign * temperature,
        negative_mode=mode,
        reduction=reduction,
    )
    return in_dtype_of(query, loss)


def _logits(query, positive_key, negative_keys, mode):
    """Formed, with the column of every positive."""
    q, k = F.normalize(query, dim=-1), F.normalize(positive_key, dim=-1)
    if negative_keys is None:
        return q @ k.T, torch.arange(len(q), device=q.device)
    others = F.normalize(negative_keys, dim=-1)
    s = (others @ q[:, :, None])[..., 0] if mode == "paired" else q @ others.T
    s = torch.cat([(q * k).sum(1, keepdim=True), s], dim=1)
    return s, torch.zeros(len(s), dtype=torch.long, device=s.device)


def _check(query, positive_key, negative_keys, mode):
    """The errors of info_nce.info_nce, word for word."""
    if query.dim() != 2:
        raise ValueError("<query> must have 2 dimensions.")
    if positive_key.dim() != 2:
        raise ValueError("<positive_key> must have 2 dimensions.")
    if negative_keys is not None:
        for name, dims in (("unpaired", 2), ("paired", 3)):
            if mode == name and negative_keys.dim() != dims:
                raise ValueError(
                    f"<negative_keys> must have {dims} dimensions if <negative_mode> == '{name}'."
                )
    if len(query) != len(positive_key):
        raise ValueError("<query> and <positive_key> must must have the same number of samples.")
    if negative_keys is not None and mode == "paired" and len(query) != len(negative_keys):
        raise ValueError(
            "If negative_mode == 'paired', then <negative_keys> must have the same number of "
            "samples as <query>."
        )
    others = (("positive_key", positive_key), ("negative_keys", negative_keys))
    for name, keys in others:
        if keys is not None and query.shape[-1] != keys.shape[-1]:
            raise ValueError(
                f"Vectors of <query> and <{name}> should have the same number of components."
            )
