"""What the pretext tasks share: draw a question about images, then the loss of its answer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from ..distributed import mean


class Pretext(nn.Module):
    """A task that images set themselves: `forward` is `loss` of what `draw` made of the batch.

    `draw` holds all chance, of torch's global generators, and no gradient; `loss` holds the
    networks and no chance, so that a question can be asked twice.

    Attributes:
        rank: `[n]` int64, how many wrong answers scored above the right one in the last forward;
            None where answers are no classes.
    """

    rank: Tensor | None = None

    def draw(self, images: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def loss(self, *drawn: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """The loss of a batch of images, a scalar, over the global batch when distributed."""
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a tensor, got {type(images).__name__}")
        # Colour is converted in the images' precision also where networks run in bfloat16.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            drawn = self.draw(images)
        return self.loss(*drawn)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""

    def cross_entropy(
        self,
        logits: Tensor,  # [n, classes]
        label: Tensor,  # [n] int64
        weight: Tensor | None = None,  # [n]
    ) -> Tensor:
        """Mean loss in float32 at least, over the rows of all ranks; keeps the rank."""
        logits = logits.double() if logits.dtype == torch.float64 else logits.float()
        right = logits.detach().gather(1, label[:, None])
        self.rank = (logits.detach() > right).sum(1)
        each = F.cross_entropy(logits, label, reduction="none")
        return mean(each if weight is None else weight * each)


def check_images(images: Tensor, channels: int | None = None, smallest: int = 1) -> None:
    """Floating-point square pictures of so many channels, and so many pixels to a side."""
    _check.array("images", images, 4, "[b, channels, side, side]")
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be square, got {images.shape[2]} x {images.shape[3]} pixels")
    if channels is not None and images.shape[1] != channels:
        raise ValueError(f"images must have {channels} channels, got {images.shape[1]}")
    if images.shape[2] < smallest:
        raise ValueError(
            f"images must have {smallest} pixels to a side at least, got {images.shape[2]}"
        )


def crop(
    images: Tensor,  # [b, channels, h, w]
    top: Tensor,  # [b] int64
    left: Tensor,  # [b] int64
    size: int,
) -> Tensor:
    """The square of every image whose first pixel is at (top, left): `[b, channels, size, size]`.

    Equal to ``stack([x[:, t : t + size, l : l + size] for x, t, l in zip(images, top, left)])``.
    """
    steps = torch.arange(size, device=images.device)
    rows, columns = top[:, None] + steps, left[:, None] + steps
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def feature_maps(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features `[b, width, h, w]` before the pooling.

    By the backbone's `maps` (networks of `pretrain.backbone`) or `forward_features` (timm);
    another backbone must return maps, or vectors, which count as maps of one position.

    Raises:
        ValueError: The result is neither.
    """
    for name in ("maps", "forward_features"):
        if hasattr(backbone, name):
            maps = getattr(backbone, name)(images)
            break
    else:
        maps = backbone(images)
    if maps.dim() == 2:
        maps = maps[:, :, None, None]
    if maps.dim() != 4:
        raise ValueError(
            f"backbone must return [b, width, h, w] or [b, width], got {list(maps.shape)}"
        )
    return maps
