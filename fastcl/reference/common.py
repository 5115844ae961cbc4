"""What every reference shares: the accumulation dtype and the scaled similarities."""

import torch
from torch import Tensor


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype an operator accumulates and returns in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def no_autocast(x: Tensor) -> torch.autocast:
    """Autocast would lower the products here, whatever the rows' dtype."""
    kind = "cpu" if x.is_meta else x.device.type  # there is none for what has no memory
    return torch.autocast(kind, enabled=False)


def scaled(similarity, scale, logit_scale, dtype):
    """A similarity as a logit in dtype; None stays None."""
    if similarity is None:
        return None
    s = scale * similarity.to(dtype)
    return s if logit_scale is None else s * logit_scale.to(dtype)


def logits(q, k, scale, logit_scale):
    """All logits of rows q and columns k, [n, m]."""
    dtype = accumulate_dtype(q.dtype)
    return scaled(q.to(dtype) @ k.to(dtype).T, scale, logit_scale, dtype)
