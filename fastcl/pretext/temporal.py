"""Time as the teacher: the order of frames, and what stays the same across views of a moment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from ..distributed import mean
from ..functional import unit_rows
from ..reference import accumulate_dtype
from .base import Pretext

# Of frames a < b < c < d < e: in order, and with the middle one from before or after.
TUPLES = ((1, 2, 3), (1, 0, 3), (1, 4, 3))


def check_frames(name: str, frames: Tensor, dims: int, least: int) -> None:
    _check.array(name, frames, dims, "[..., channels, h, w]")
    if frames.shape[dims - 4] < least:
        raise ValueError(f"{name} must have {least} frames at least, got {frames.shape[dims - 4]}")


class TemporalOrder(Pretext):
    """Are three frames in their order?

    Of five frames a to e of a window, (b, c, d) is in order and (b, a, d), (b, e, d) are not; each
    may run backwards. One in order beside two that are not comes near the paper's best mixture of
    a quarter to three quarters. The end frames are the same in both kinds, so that they alone do
    not tell. Windows should be where something moves: `motion_windows` draws them.

    Args:
        backbone: Maps frames to features `[b, width]`; one network for the three.
        width: Features of the backbone.

    Raises:
        ValueError: In the forward, frames that are not `[b, 5, channels, h, w]`.

    Source: Misra et al. 2016, "Shuffle and Learn: Unsupervised Learning using Temporal Order
    Verification", section 3.
    """

    def __init__(self, backbone: nn.Module, *, width: int) -> None:
        super().__init__()
        _check.count("width", width)
        self.backbone = backbone
        self.classifier = nn.Linear(3 * width, 2)

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [b, 5, channels, h, w]
        """Frames in threes `[3 b, 3, channels, h, w]`; label 1 where they are in order."""
        check_frames("images", images, 5, 5)
        if images.shape[1] != 5:
            raise ValueError(f"images must have 5 frames each, got {images.shape[1]}")
        tuples = torch.cat([images[:, list(order)] for order in TUPLES])
        label = (torch.arange(len(tuples), device=images.device) < len(images)).long()
        backwards = torch.rand(len(tuples), 1, 1, 1, 1, device=images.device) < 0.5
        return torch.where(backwards, tuples.flip(1), tuples), label

    def loss(self, tuples: Tensor, label: Tensor) -> Tensor:
        features = self.backbone(tuples.flatten(0, 1)).reshape(len(label), -1)
        return self.cross_entropy(self.classifier(features), label)


def motion_windows(
    video: Tensor,  # [t, channels, h, w]
    count: int,
    *,
    step: int = 15,
) -> Tensor:
    """Windows of five frames `[count, 5, channels, h, w]`, drawn where the picture changes.

    Args:
        video: Frames in order, 4 step + 1 at least.
        count: Windows.
        step: Frames from one frame of a window to the next.

    Probability goes by the mean absolute difference of frames inside the window; the paper takes
    the optical flow.

    Raises:
        ValueError: A video that is too short.
    """
    _check.count("count", count)
    _check.count("step", step)
    check_frames("video", video, 4, 4 * step + 1)
    change = (video[1:] - video[:-1]).abs().mean((1, 2, 3)).double()
    motion = change.unfold(0, 4 * step, 1).sum(1)
    start = torch.multinomial(motion + 1e-12, count, replacement=True)
    return video[start[:, None] + step * torch.arange(5, device=video.device)]


class TimeContrastive(Pretext):
    """Frames of one moment are near each other, frames of other moments far: a triplet loss.

        loss = mean max(0, |f(anchor) - f(positive)|^2 - |f(anchor) - f(negative)|^2 + margin)

    With two synchronous views of a scene the positive is the same moment seen from the other
    side, and look-alike neighbours in time are negatives: the network must see what changes.

    Args:
        backbone: Maps frames to features `[t, width]`.
        width: Features of the backbone.
        dim: Width of the embedding, unit rows.
        margin: Positive.
        window: Frames nearer in time than this are no negatives; with one view, positives are
            drawn from within half of it.

    Raises:
        ValueError: A choice out of range, or in the forward too few frames for a negative.

    Source: Sermanet et al. 2018, "Time-Contrastive Networks: Self-Supervised Learning from
    Video", equation 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        dim: int = 32,
        margin: float = 0.2,
        window: int = 10,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("dim", dim), ("window", window)):
            _check.count(name, value)
        self.margin, self.window = _check.positive("margin", margin), window
        self.backbone = backbone
        self.projector = nn.Linear(width, dim)

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, positives and negatives `[t, channels, h, w]` of one view `[t, channels, h, w]`
        or two `[2, t, channels, h, w]`."""
        two = isinstance(images, Tensor) and images.dim() == 5
        check_frames("images", images, 5 if two else 4, 2 * self.window)
        if two and len(images) != 2:
            raise ValueError(f"images must be 1 or 2 views, got {len(images)}")
        first, second = (images[0], images[1]) if two else (images, images)
        time = torch.arange(len(first), device=images.device)
        away = (time[:, None] - time).abs()
        negative = torch.multinomial((away >= self.window).double(), 1)[:, 0]
        positive = time
        if not two:
            near = (away > 0) & (away <= max(1, self.window // 2))
            positive = torch.multinomial(near.double(), 1)[:, 0]
        return first, second[positive], first[negative]

    def loss(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        z = self.projector(self.backbone(torch.cat([anchor, positive, negative])))
        a, p, n = unit_rows(z).to(accumulate_dtype(z.dtype)).chunk(3)
        near, far = ((a - x).square().sum(1) for x in (p, n))
        self.rank = (far <= near).long().detach()
        return mean(F.relu(near - far + self.margin))
