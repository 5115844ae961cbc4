"""open_clip's CLIP loss with a teacher."""

import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import _check
from ..contrast.gradients import refuse_forward_mode
from ..reference import accumulate_dtype
from ._common import in_dtype_of, replaced, several
from ._open_clip_both import Both
from ._open_clip_softmax import ClipLoss

BLOCK = 2**22  # similarities of a block of rows: 16 MB in float32
Pair = tuple[Tensor, Tensor]  # rows [n, d] and columns [m, d] of logits


def soft_contrast(student: Pair, teacher: Pair) -> Tensor:
    """The mean cross-entropy of the rows of one softmax contrast under those of another.

    Equal to ``-(t.softmax(1) * s.log_softmax(1)).sum(1).mean()`` of their logits ``s, t = rows @
    columns.T``, which are formed a block of rows at a time, and again in the backward.

    Args:
        student: `[n, d]` and `[m, d]`.
        teacher: `[n, e]` and `[m, e]`.
    """
    n, m = student[0].shape[0], student[1].shape[0]
    count = max(1, BLOCK // m)
    total = 0
    for start in range(0, n, count):
        block = slice(start, start + count)
        total = total + checkpoint(
            _block, student[0][block], student[1], teacher[0][block], teacher[1],
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
    return total / n


def _block(q: Tensor, k: Tensor, teacher_q: Tensor, teacher_k: Tensor) -> Tensor:
    return -((teacher_q @ teacher_k.T).softmax(1) * (q @ k.T).log_softmax(1)).sum()


class DistillClipLoss(ClipLoss):
    """CLIP, and beside it how far its two softmaxes are from those of a teacher.

    Equal to open_clip's class of this name. The arguments are those of `ClipLoss`. No logits are
    formed, except where a subclass or the instance replaces a method. Fastest where the teacher is
    constant, and both directions are of one matrix: not with local_loss over several ranks.
    """

    def dist_loss(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """The mean cross-entropy of rows `[n, m]`, a scalar; for subclasses that want it."""
        return -(teacher_logits.softmax(1) * student_logits.log_softmax(1)).sum(1).mean(0)

    def forward(
        self,
        image_features: Tensor,  # [n, d]
        text_features: Tensor,  # [n, d]
        logit_scale: Tensor | float,  # []
        dist_image_features: Tensor,  # [n, e]
        dist_text_features: Tensor,  # [n, e]
        dist_logit_scale: Tensor | float,  # []
        output_dict: bool = False,
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        """The CLIP loss and the distillation loss, each in the dtype of the features."""
        student = image_features, text_features, logit_scale
        teacher = dist_image_features, dist_text_features, dist_logit_scale
        if replaced(self, "get_logits", "get_ground_truth", "dist_loss"):
            loss, distilled = self._formed_both(student, teacher)
        else:
            loss, distilled = self._streamed_both(student, teacher)
            loss = in_dtype_of(image_features, loss)
            wide = dist_image_features.dtype.itemsize > image_features.dtype.itemsize
            distilled = in_dtype_of(dist_image_features if wide else image_features, distilled)
        if output_dict:
            return {"contrastive_loss": loss, "distill_loss": distilled}
        return loss, distilled

    def _streamed_both(self, student, teacher) -> tuple[Tensor, Tensor]:
        images = student[0]
        _check.no_transform()
        _check.pairs("text_features", student[1], "image_features", images)
        _check.pairs("dist_text_features", teacher[1], "dist_image_features", teacher[0])
        if len(images) != len(teacher[0]):
            raise ValueError(
                f"dist_image_features must have as many rows as image_features, {len(images)}, "
                f"got {len(teacher[0])}"
            )
        pairs, taught = self._pairs(*student), self._pairs(*teacher)
        square = self.world_size == 1 or not self.local_loss
        square = square and not several(student[2]) and not several(teacher[2])
        if square and not any(x.requires_grad for x in taught[0]):
            refuse_forward_mode(*pairs[0], *taught[0])
            return Both.apply(*pairs[0], *taught[0])
        distilled = sum(soft_contrast(*pair) for pair in zip(pairs, taught, strict=True)) / 2
        return self._streamed(*student), distilled

    def _pairs(self, images, texts, scale) -> tuple[Pair, Pair]:
        """Rows and columns of the logits per image and per text."""
        images, texts, text_rows, image_columns = (
            x.to(accumulate_dtype(x.dtype)) for x in self._features(images, texts)
        )
        scaled = images * scale
        if self.world_size > 1 and not self.local_loss:  # the transposed matrix
            return (scaled, texts), (texts, scaled)
        return (scaled, texts), (text_rows * scale, image_columns)

    def _formed_both(self, student, teacher) -> tuple[Tensor, Tensor]:
        logits, wanted = self.get_logits(*student), self.get_logits(*teacher)
        labels = self.get_ground_truth(student[0].device, logits[0].shape[0])
        loss = sum(F.cross_entropy(x, labels) for x in logits) / 2
        return loss, sum(self.dist_loss(t, s) for t, s in zip(wanted, logits, strict=True)) / 2
