"""SupContrast (github.com/HobbitLong/SupContrast): its loss. Mimics commit 66a8fe5."""

from typing import Any

import torch
from torch import Tensor, nn

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ._common import is_one, log_sum, signed_inverse, times

__all__ = ["SupConLoss"]


class SupConLoss(nn.Module):
    """The supervised contrastive loss of several views per sample.

    Equal to SupContrast's class of this name. Rows are used as they are: normalise them before. A
    row without a positive counts as zero. The loss is multiplied by temperature / base_temperature.

    Args:
        temperature: Divides the products.
        contrast_mode: "all" views are anchors, or "one", the first.
        base_temperature: See above.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        contrast_mode: str = "all",
        base_temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.contrast_mode = contrast_mode
        self.base_temperature = base_temperature

    def forward(
        self,
        features: Tensor,  # [n, views, ...]
        labels: Tensor | None = None,  # [n]
        mask: Tensor | None = None,  # [n, n]
    ) -> Tensor:
        """The mean over anchors, a scalar, float32 (float64 for float64 features).

        Neither labels nor mask: the views of a sample are its positives. mask: the weight of
        sample j as a positive of sample i; soft and asymmetric ones work.

        Raises:
            ValueError: Less than 3 dimensions, no sample, labels and mask, as many labels as
                samples not given, a mask of another shape, or an unknown mode.
        """
        if features.dim() < 3:
            raise ValueError(
                "`features` needs to be [bsz, n_views, ...],at least 3 dimensions are required"
            )
        n, views = features.shape[:2]
        if labels is not None and mask is not None:
            raise ValueError("Cannot define both `labels` and `mask`")
        if labels is not None and labels.numel() != n:
            raise ValueError("Num of labels does not match num of features")
        if self.contrast_mode not in ("one", "all"):
            raise ValueError(f"Unknown mode: {self.contrast_mode}")
        if mask is not None and mask.shape != (n, n):
            raise ValueError(f"mask must have shape [{n}, {n}], got {list(mask.shape)}")
        rows = features.flatten(2).transpose(0, 1).flatten(0, 1)  # view after view
        _check.rows("features", rows)
        anchors = n if self.contrast_mode == "one" else n * views
        sign, scale = signed_inverse(self.temperature, rows.device)
        if mask is None:
            ids = torch.arange(n, device=rows.device)
            if labels is not None:
                # Labels of any dtype: equality is all that counts.
                ids = labels.to(rows.device).reshape(-1).unique(return_inverse=True)[1]
            if is_one(sign):
                options: dict[str, Any] = {"scale": scale, "unit": False, "normalize": False}
                result = row_losses(problem(rows, ids=ids.repeat(views), **options))
                losses = torch.where(result.count > 0, result.loss, 0)[:anchors]
            else:
                mask = ids[:, None] == ids
        if mask is not None:
            losses = self._masked(rows, mask, n, views, anchors, sign, scale)
        factor = (
            self.temperature if isinstance(self.temperature, Tensor) else float(self.temperature)
        )
        return losses.mean() * (factor / self.base_temperature)

    def _masked(self, rows, mask, n, views, anchors, sign, scale):
        """The weighted positives of a row are one product with the sum over views."""
        if is_one(sign):
            lse = log_sum(rows, None, scale, unit=False)[:anchors]
        else:
            own = torch.arange(n * views, device=rows.device)
            some = times(sign, rows)[:anchors]
            lse = log_sum(some, rows, scale, (own[:anchors], own), unit=False)
        exact = rows.to(lse.dtype)
        weights = mask.to(lse)
        own = weights.diagonal()[:, None]
        sums = weights @ exact.view(views, n, -1).sum(0)
        count = (weights.sum(1) * views - own[:, 0]).repeat(anchors // n)
        anchor = exact[:anchors]
        targets = sums.repeat(anchors // n, 1) - own.repeat(anchors // n, 1) * anchor
        positive = (anchor * targets).sum(1) / self.temperature
        return (lse * count - positive) / torch.where(count < 1e-6, 1, count)
