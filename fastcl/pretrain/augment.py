"""Two random views of a batch, made on the device where the batch is."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pretext.base import crop

STRONGEST = 2.0  # beyond, brightness would turn negative
SMALLEST_CROP = 0.05  # part of the area


class DigitViews(nn.Module):
    """Views of small grey drawings: one random affine map, brightness and noise.

    The shift, rotation, shear, scale and crop are one resampling. In kornia the same view is a
    chain of 4.5 ms for 256 digits on two CPU cores against 0.4 ms for the affine map here, and
    on images of 8 x 8 that is a good part of the step.

    Args:
        degrees: Largest rotation either way.
        shift: Largest shift either way, in parts of the side.
        scale: Largest factor of magnification either way.
        shear: Largest shear either way.
        noise: Largest deviation of the added noise; pixels are in [0, 1].
        brightness: Largest change of the brightness either way, as a share.
    """

    def __init__(
        self,
        degrees: float = 15.0,
        shift: float = 0.12,
        scale: float = 1.25,
        shear: float = 0.2,
        noise: float = 0.1,
        brightness: float = 0.3,
    ) -> None:
        super().__init__()
        self.radians = math.radians(degrees)
        self.shift, self.log_scale, self.shear = shift, math.log(scale), shear
        self.noise, self.brightness = noise, brightness

    def forward(self, images: Tensor) -> Tensor:  # uint8 [b, c, h, w] -> float [b, c, h, w]
        x = images.float() / 255
        b = x.shape[0]
        grid = F.affine_grid(self._maps(b, x.device), x.shape, align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        draws = torch.rand(2, b, 1, 1, 1, device=x.device)
        x = x * ((1 - self.brightness) + 2 * self.brightness * draws[0])
        x = x + self.noise * draws[1] * torch.randn_like(x)
        return x.clamp(0, 1)

    @classmethod
    def of_strength(cls, strength: float) -> "DigitViews":
        """1: the views of the recipes; 0: the images as they are."""
        return cls(
            15.0 * strength, 0.12 * strength, 1.25**strength, 0.2 * strength, 0.1 * strength,
            0.3 * strength,
        )  # fmt: skip

    def _maps(self, b: int, device: torch.device) -> Tensor:
        """Affine maps `[b, 2, 3]` from the view to the image, in units of half a side."""
        u = 2 * torch.rand(6, b, device=device) - 1
        angle, shear = self.radians * u[0], self.shear * u[1]
        wide, high = (self.log_scale * u[2:4]).exp()
        dx, dy = 2 * self.shift * u[4:6]
        cos, sin = angle.cos(), angle.sin()
        top = [wide * cos, wide * (shear * cos - sin), dx]
        bottom = [high * sin, high * (shear * sin + cos), dy]
        return torch.stack([*top, *bottom], dim=1).view(b, 2, 3)


class PhotographViews(nn.Module):
    """Views of photographs as in SimCLR and MoCo v2, by kornia.

    Resized crop, mirror image, colour jitter, grey, and blur from 96 pixels on: on CIFAR's 32
    pixels SimCLR leaves it out. Solarising and the like belong to later methods.

    Args:
        size: Side of the images in pixels.
        jitter: Strength of the colour jitter; 0.5 gives MoCo v2's 0.4, 0.4, 0.4, 0.1.
        scale: Smallest and largest part of the area that a crop takes.
        strength: Multiplies `jitter` and the chances of grey and of blur.
    """

    def __init__(
        self,
        size: int,
        jitter: float = 0.5,
        scale: tuple[float, float] = (0.2, 1.0),
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        import kornia.augmentation as K

        jitter = jitter * strength
        light, hue = 0.8 * jitter, 0.2 * jitter
        chain = [
            # "resample" crops the whole batch at once; the default "slice" goes image by image.
            K.RandomResizedCrop((size, size), scale=scale, cropping_mode="resample"),
            K.RandomHorizontalFlip(),
            K.ColorJitter(light, light, light, hue, p=0.8),
            K.RandomGrayscale(p=0.2 * strength),
        ]
        if size >= 96:
            kernel = size // 20 * 2 + 1  # a tenth of the side, odd
            chain.append(K.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=0.5 * strength))
        self.chain = K.AugmentationSequential(*chain, data_keys=["input"])

    @classmethod
    def of_strength(cls, size: int, strength: float) -> "PhotographViews":
        """1: the views of the recipes; 0: the whole image, mirrored or not."""
        least = max(SMALLEST_CROP, round(1 - 0.8 * strength, 6))
        return cls(size, scale=(least, 1.0), strength=strength)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:  # uint8 [b, 3, h, w] -> float [b, 3, h, w]
        return self.chain(images.float() / 255)


class Views(nn.Module):
    """The views that suit a kind of data, normalised per channel.

    All chance comes from PyTorch's global generators, so that a seed and a checkpoint hold it.

    Args:
        kind: "digits" or "photographs".
        size: Side of the images in pixels.
        statistics: Mean and standard deviation of each channel, in [0, 1].
        crops: How many small crops of photographs `small_crops` makes, with 3/7 of the side.
        strength: Of the views, from 0 to 2; 1 is the recipes'.

    Source of the small crops: Caron et al. 2020, "Unsupervised Learning of Visual Features by
    Contrasting Cluster Assignments", section 3.3: 96 pixels beside views of 224.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        statistics: tuple[Tensor, Tensor],
        crops: int = 0,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        self.views = (
            DigitViews.of_strength(strength) if kind == "digits"
            else PhotographViews.of_strength(size, strength)
        )  # fmt: skip
        self.crops = crops
        if crops:
            self.small = PhotographViews(round(size * 3 / 7), scale=(0.05, 0.2), strength=strength)
        for name, value in zip(("mean", "deviation"), statistics, strict=True):
            self.register_buffer(name, value.view(1, -1, 1, 1))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:  # uint8 [b, c, h, w] -> float [b, c, h, w]
        return (self.views(images) - self.mean) / self.deviation

    @torch.no_grad()
    def light(self, images: Tensor) -> Tensor:  # uint8 [b, c, h, w] -> float [b, c, h, w]
        """Moved by up to an eighth of the side, photographs also mirrored; colours and lines stay
        what they are, as pretext tasks need them."""
        b, side = len(images), images.shape[2]
        room = side // 8
        padded = F.pad(images.float() / 255, [room] * 4, mode="replicate")
        top, left = torch.randint(2 * room + 1, (2, b), device=images.device)
        x = crop(padded, top, left, side)
        if not isinstance(self.views, DigitViews):
            x = torch.where(torch.rand(b, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
        return (x - self.mean) / self.deviation

    @torch.no_grad()
    def small_crops(self, images: Tensor) -> list[Tensor]:  # uint8 [b, c, h, w]
        """`crops` views, each float `[b, c, side, side]`."""
        return [(self.small(images) - self.mean) / self.deviation for _ in range(self.crops)]
