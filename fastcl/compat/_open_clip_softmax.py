"""open_clip's losses with a softmax."""

from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check, distributed
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from ._common import in_dtype_of, replaced, several, signed, times


def gather_features(
    image_features: Tensor,  # [n, d]
    text_features: Tensor,  # [n, d]
    local_loss: bool,
    gather_with_grad: bool,
    rank: int,
) -> tuple[Tensor, Tensor]:
    """The features of all ranks. Without gather_with_grad only the own rows receive gradients,
    and with local_loss not even these."""
    if gather_with_grad:
        return tuple(
            distributed.gather_with_gradient(x, equal=True) for x in (image_features, text_features)
        )
    gathered = []
    for x in (image_features, text_features):
        rows = distributed.gather(x, equal=True)
        if not local_loss:
            start = rank * x.shape[0]
            rows = torch.cat([rows[:start], x, rows[start + x.shape[0] :]])
        gathered.append(rows)
    return tuple(gathered)


class ClipLoss(nn.Module):
    """CLIP: the mean of image to text and text to image.

    Equal to open_clip's class of this name. Features are used as they are: normalise them before.
    No logits are formed, except where a subclass or the instance replaces `get_logits` or
    `get_ground_truth`, or the bias is several numbers.

    Args:
        local_loss: Contrast the rows of this rank alone with those of all ranks.
        gather_with_grad: Let gradients return to the rank a row came from. Only with it are
            gradients, averaged over ranks, those of the global batch.
        cache_labels: Keep the labels of the last batch size.
        rank: Of this process.
        world_size: How many processes there are.
        use_horovod: Must be False.

    Raises:
        ValueError: use_horovod.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        if use_horovod:
            raise ValueError("use_horovod must be False: fastcl gathers with torch.distributed")
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.use_horovod = use_horovod
        self.prev_num_logits = 0
        self.labels = {}

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """The column that belongs to every row, `[num_logits]`."""
        if self.prev_num_logits == num_logits and device in self.labels:
            return self.labels[device]
        labels = torch.arange(num_logits, device=device, dtype=torch.long)
        if self.world_size > 1 and self.local_loss:
            labels = labels + num_logits * self.rank
        if self.cache_labels:
            self.labels[device] = labels
            self.prev_num_logits = num_logits
        return labels

    def _features(self, image_features, text_features):
        """Rows and columns of the logits per image, then of those per text."""
        if self.world_size == 1:
            return image_features, text_features, text_features, image_features
        images, texts = gather_features(
            image_features, text_features, self.local_loss, self.gather_with_grad, self.rank
        )
        if self.local_loss:
            return image_features, texts, text_features, images
        return images, texts, texts, images

    def get_logits(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float | None = None,  # []
    ) -> tuple[Tensor, Tensor]:
        """The logits per image and per text, formed; for subclasses that want them."""
        images, texts, text_rows, image_columns = self._features(image_features, text_features)
        per_image = logit_scale * images @ texts.T
        if self.world_size > 1 and not self.local_loss:
            per_text = per_image.T
        else:
            per_text = logit_scale * text_rows @ image_columns.T
        if logit_bias is not None:
            per_image, per_text = per_image + logit_bias, per_text + logit_bias
        return per_image, per_text

    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = ...,
        output_dict: Literal[False] = ...,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = ...,
        *,
        output_dict: Literal[True],
    ) -> dict[str, Tensor]: ...
    @overload
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = ...,
        output_dict: bool = ...,
    ) -> Tensor | dict[str, Tensor]: ...
    def forward(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        logit_bias: Tensor | float | None = None,  # []
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """A scalar in the dtype of the features, or ``{"contrastive_loss": scalar}``.

        logit_scale and logit_bias receive gradients; that of the bias is zero, because a softmax
        does not see what is added to all its logits.
        """
        if replaced(self, "get_logits", "get_ground_truth") or several(logit_bias):
            loss = self._formed(image_features, text_features, logit_scale, logit_bias)
        else:
            loss = self._streamed(image_features, text_features, logit_scale)
            if logit_bias is not None:
                loss = loss + 0 * torch.as_tensor(logit_bias, device=loss.device).sum()
            loss = in_dtype_of(image_features, loss)
        return {"contrastive_loss": loss} if output_dict else loss

    def _formed(self, image_features, text_features, logit_scale, logit_bias):
        per_image, per_text = self.get_logits(
            image_features, text_features, logit_scale, logit_bias=logit_bias
        )
        labels = self.get_ground_truth(image_features.device, per_image.shape[0])
        return (F.cross_entropy(per_image, labels) + F.cross_entropy(per_text, labels)) / 2

    def _streamed(self, image_features, text_features, logit_scale):
        _check.pairs("text_features", text_features, "image_features", image_features)
        images, texts, text_rows, image_columns = self._features(image_features, text_features)
        labels = self.get_ground_truth(image_features.device, images.shape[0])
        one_matrix = self.world_size > 1 and not self.local_loss
        options: dict[str, Any]
        if several(logit_scale):  # one for every row: that of a text is not that of its image
            images, text_rows, scale = logit_scale * images, logit_scale * text_rows, 1.0
        else:
            sign, scale = signed(logit_scale, images.device)
            images, text_rows = times(sign, images), times(sign, text_rows)
            one_matrix = one_matrix or self.world_size == 1
        if one_matrix:
            options = {"both": True, "unit": False, "normalize": False}
            return mean_loss(problem(images, texts, scale=scale, ids=labels, **options))[0]
        ids = labels, torch.arange(texts.shape[0], device=labels.device)
        options = {"scale": scale, "ids": ids, "unit": False, "normalize": False}
        halves = [
            mean_loss(problem(rows, columns, **options))[0]
            for rows, columns in ((images, texts), (text_rows, image_columns))
        ]
        return (halves[0] + halves[1]) / 2


class CoCaLoss(ClipLoss):
    """CLIP and the cross-entropy of captions, as open_clip's class of this name.

    Args:
        caption_loss_weight: Multiplies the caption loss.
        clip_loss_weight: Multiplies the CLIP loss; 0 leaves it out.
        pad_id: Label that the caption loss ignores.

    The others are those of `ClipLoss`.
    """

    def __init__(
        self,
        caption_loss_weight: float,
        clip_loss_weight: float,
        pad_id: int = 0,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__(local_loss, gather_with_grad, cache_labels, rank, world_size, use_horovod)
        self.clip_loss_weight = clip_loss_weight
        self.caption_loss_weight = caption_loss_weight
        self.caption_loss = nn.CrossEntropyLoss(ignore_index=pad_id)

    def forward(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logits: Tensor,  # [n, length, vocabulary]
        labels: Tensor,  # [n, length] int64
        logit_scale: Tensor | float,  # []
        output_dict: bool = False,
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        """The CLIP loss and the caption loss, each with its weight."""
        if self.clip_loss_weight:
            clip_loss = super().forward(image_features, text_features, logit_scale)
            clip_loss = self.clip_loss_weight * clip_loss
        else:
            clip_loss = torch.tensor(0, device=logits.device)
        caption_loss = self.caption_loss(logits.permute(0, 2, 1), labels)
        caption_loss = caption_loss * self.caption_loss_weight
        if output_dict:
            return {"contrastive_loss": clip_loss, "caption_loss": caption_loss}
        return clip_loss, caption_loss
