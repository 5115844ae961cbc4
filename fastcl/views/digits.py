"""Views of small grey drawings."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from .chance import Chance, check_generator


class Digits(nn.Module):
    """Views of small grey drawings: one random affine map, brightness and noise.

    Shift, rotation, shear, scale and crop are one resampling, as drawings of 8 x 8 pixels would
    not survive several.

    Args:
        views: How many of each image.
        degrees: Largest rotation either way.
        shift: Largest shift either way, in parts of the side.
        scale: Largest factor of magnification either way.
        shear: Largest shear either way.
        noise: Largest deviation of the added noise; pixels are in [0, 1].
        brightness: Largest change of the brightness either way, as a share.
        generator: As for `Drawn`.

    Returns:
        float32 `[views, b, c, h, w]` in [0, 1] of uint8 `[b, c, h, w]`, or of a list of
        `[c, h, w]` of one size.

    Raises:
        ValueError, TypeError: Less than one view, a range that is none, or images of another shape
            or dtype.
    """

    def __init__(
        self,
        views: int = 2,
        *,
        degrees: float = 15.0,
        shift: float = 0.12,
        scale: float = 1.25,
        shear: float = 0.2,
        noise: float = 0.1,
        brightness: float = 0.3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check.count("views", views)
        for name, x in (("degrees", degrees), ("shift", shift), ("shear", shear), ("noise", noise)):
            if _check.finite(name, x) < 0:
                raise ValueError(f"{name} must be 0 or more, got {x}")
        if _check.finite("scale", scale) < 1:
            raise ValueError(f"scale must be 1 or more, got {scale}")
        _check.share("brightness", brightness)
        self.views = views
        self.radians = math.radians(degrees)
        self.shift, self.log_scale, self.shear = shift, math.log(scale), shear
        self.noise, self.brightness = noise, brightness
        self.chance = Chance(generator)

    @torch.no_grad()
    def forward(
        self, images: Tensor | Sequence[Tensor], generator: torch.Generator | None = None
    ) -> Tensor:
        images = _batch(images) if isinstance(images, Sequence) else images
        _check.tensor("images", images)
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        if images.dim() != 4:
            raise ValueError(
                f"images must have 4 dimensions [b, c, h, w], got shape {list(images.shape)}"
            )
        if 0 in images.shape:
            raise ValueError(f"images must have pixels, got shape {list(images.shape)}")
        check_generator(generator, images.device)
        generator = generator or self.chance.now()
        return torch.stack([self._view(images, generator) for _ in range(self.views)])

    def _view(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        x = images.float() / 255
        b = len(x)
        grid = F.affine_grid(self._maps(b, x.device, generator), x.shape, align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        draws = torch.rand(2, b, 1, 1, 1, dtype=x.dtype, device=x.device, generator=generator)
        x = x * ((1 - self.brightness) + 2 * self.brightness * draws[0])
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return (x + self.noise * draws[1] * noise).clamp(0, 1)

    def _maps(self, b: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
        """Affine maps `[b, 2, 3]` from the view to the image, in units of half a side."""
        u = torch.rand(6, b, dtype=torch.float32, device=device, generator=generator) * 2 - 1
        angle, shear = self.radians * u[0], self.shear * u[1]
        wide, high = (self.log_scale * u[2:4]).exp()
        dx, dy = 2 * self.shift * u[4:6]
        cos, sin = angle.cos(), angle.sin()
        top = [wide * cos, wide * (shear * cos - sin), dx]
        bottom = [high * sin, high * (shear * sin + cos), dy]
        return torch.stack([*top, *bottom], dim=1).view(b, 2, 3)


def _batch(images: Sequence[Tensor]) -> Tensor:
    """Images of one shape as one tensor."""
    if len(images) == 0:
        raise ValueError("images must hold one image at least, got none")
    for i, x in enumerate(images):
        _check.tensor(f"images[{i}]", x)
        if x.shape != images[0].shape:
            raise ValueError(
                f"images[{i}] must have the shape of images[0], {list(images[0].shape)}, got "
                f"{list(x.shape)}: views of drawings are as large as these"
            )
    return torch.stack(list(images))
