"""info-nce-pytorch: its loss as a class and as a function. Mimics version 0.1.4."""

from torch import Tensor, nn

from ..functional import info_nce as _info_nce
from ._common import in_dtype_of

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
    temperature: float = 0.1,
    reduction: str = "mean",
    negative_mode: str = "unpaired",
) -> Tensor:
    """InfoNCE of every query against its key and the negatives; rows are normalised here.

    Equal to info_nce.info_nce. Without negative_keys the other keys are the negatives; with them
    the other keys are not used.

    Returns:
        A scalar, or `[n]` for reduction "none", in the dtype of query.

    Raises:
        ValueError: Shapes do not fit, or an unknown reduction or mode.
    """
    _check(query, positive_key, negative_keys, negative_mode)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    if temperature < 0:
        query, temperature = -query, -temperature
    loss = _info_nce(
        query,
        positive_key,
        negative_keys,
        temperature=temperature,
        negative_mode="unpaired" if negative_keys is None else negative_mode,
        reduction=reduction,
    )
    return in_dtype_of(query, loss)


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
