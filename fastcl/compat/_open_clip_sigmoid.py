"""open_clip's SigLIP loss."""

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check, distributed
from ..contrast.problem import problem
from ..contrast.sigmoid import sigmoid_sum
from ._common import in_dtype_of, replaced, several, signed, times


class SigLipLoss(nn.Module):
    """SigLIP: every pair is classified as matching or not.

    Equal to open_clip's class of this name. Features are used as they are: normalise them before.
    No logits are formed, except where a subclass or the instance replaces `get_logits` or
    `get_ground_truth`, or the bias is several numbers; another `_loss` is called for every block of
    pairs.

    Args:
        cache_labels: Kept; no labels are formed.
        rank: Of this process.
        world_size: How many processes there are.
        dist_impl: "bidir", "shift", "reduce" or "gather". All gather the texts once here, which
            gives the value and the gradients of each.
        chunk_size: Kept; no logits are formed, whatever it is.
    """

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dist_impl: str | None = None,
        chunk_size: int = 0,
    ) -> None:
        super().__init__()
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.dist_impl = dist_impl or "bidir"
        assert self.dist_impl in ("bidir", "shift", "reduce", "gather")
        self.chunk_size = chunk_size
        self.prev_num_logits = 0
        self.labels = {}

    def get_ground_truth(
        self,
        device: torch.device,
        dtype: torch.dtype,
        num_logits: int,
        negative_only: bool = False,
    ) -> Tensor:
        """1 where a pair matches and -1 elsewhere, formed: `[num_logits, num_logits]`."""
        labels = -torch.ones((num_logits, num_logits), device=device, dtype=dtype)
        return labels if negative_only else labels.fill_diagonal_(1)

    def get_logits(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float | None = None,  # []
    ) -> Tensor:
        """The logits, formed; for those who want them."""
        logits = logit_scale * image_features @ text_features.T
        return logits if logit_bias is None else logits + logit_bias

    def _loss(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float | None = None,  # []
        negative_only: bool = False,
    ) -> Tensor:
        """The loss of one block of pairs, of which none match where negative_only."""
        if self._is_formed(logit_bias):
            labels = self.get_ground_truth(
                image_features.device,
                image_features.dtype,
                image_features.shape[0],
                negative_only=negative_only,
            )
            logits = self.get_logits(image_features, text_features, logit_scale, logit_bias)
            return -F.logsigmoid(labels * logits).sum() / image_features.shape[0]
        _check.pairs("text_features", text_features, "image_features", image_features)
        ids = None
        if not negative_only:
            ids = torch.arange(image_features.shape[0], device=image_features.device)
        return self._streamed(image_features, text_features, logit_scale, logit_bias, ids)

    def _is_formed(self, logit_bias) -> bool:
        return replaced(self, "get_logits", "get_ground_truth") or several(logit_bias)

    def _streamed(self, images, texts, logit_scale, logit_bias, ids):
        rows, scale = logit_scale * images if several(logit_scale) else images, 1.0
        if rows is images:
            sign, scale = signed(logit_scale, images.device)
            rows = times(sign, images)
        bias = 0.0 if logit_bias is None else logit_bias
        if not isinstance(bias, Tensor):
            bias = float(bias)
        else:
            bias = bias.to(images.device, torch.promote_types(bias.dtype, torch.float32))
        pairs = problem(rows, texts, scale=scale, ids=ids, unit=False, normalize=False)
        loss = sigmoid_sum(pairs, bias)
        return in_dtype_of(images, loss / images.shape[0])

    def _by_blocks(self, images, texts, logit_scale, logit_bias):
        """The own texts, and those of the other ranks in the order of a ring."""
        everyone = distributed.gather_with_gradient(texts, equal=True).split(texts.shape[0])
        loss = self._loss(images, texts, logit_scale, logit_bias)
        for step in range(1, self.world_size):
            others = everyone[(self.rank - step) % self.world_size]
            loss = loss + self._loss(images, others, logit_scale, logit_bias, negative_only=True)
        return loss

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        output_dict: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        *,
        output_dict: Literal[True],
    ) -> dict[str, Tensor]: ...
    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        output_dict: bool = ...,
    ) -> Tensor | dict[str, Tensor]: ...
    def forward(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float | None,  # []
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """The sum over all pairs divided by n: a scalar, or ``{"contrastive_loss": scalar}``."""
        if self.world_size == 1:
            loss = self._loss(image_features, text_features, logit_scale, logit_bias)
        elif replaced(self, "_loss") or self._is_formed(logit_bias):
            loss = self._by_blocks(image_features, text_features, logit_scale, logit_bias)
        else:
            texts = distributed.gather_with_gradient(text_features, equal=True)
            columns = torch.arange(texts.shape[0], device=texts.device)
            first = self.rank * text_features.shape[0]
            ids = columns[first : first + image_features.shape[0]], columns
            loss = self._streamed(image_features, texts, logit_scale, logit_bias, ids)
        return {"contrastive_loss": loss} if output_dict else loss
