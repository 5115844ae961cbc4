"""Lightness and colour of photographs, and a pair of networks with one for each."""

import torch
from torch import Tensor, nn

# Networks see images normalised by the mean and the deviation of their data. Those of photographs
# are near these, which bring the images back to about [0, 1].
MEAN, DEVIATION = 0.5, 0.25
# sRGB to XYZ (IEC 61966-2-1), every row divided by the white point D65.
XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)


def lab(
    rgb: Tensor,  # [b, 3, h, w] in [0, 1]
) -> Tensor:
    """CIE L*a*b* of sRGB images: `[b, 3, h, w]`, lightness from 0 to 100 and two colour axes."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("ij,bjhw->bihw", rgb.new_tensor(XYZ), linear)
    cut = 6 / 29
    f = torch.where(xyz > cut**3, xyz.clamp(min=cut**3) ** (1 / 3), xyz / (3 * cut**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def split_lab(
    images: Tensor,  # [b, 3, h, w], normalised
) -> tuple[Tensor, Tensor]:
    """Lightness `[b, 1, h, w]` and colour `[b, 2, h, w]`, each scaled to about unit deviation."""
    x = lab((images * DEVIATION + MEAN).clamp(0, 1))
    return (x[:, :1] - 50) / 25, x[:, 1:] / 15


class LabPair(nn.Module):
    """Two networks side by side, one of lightness and one of colour.

    Args:
        lightness: Maps `[b, 1, h, w]` to `[b, width]`.
        colour: Maps `[b, 2, h, w]` to `[b, width]`.
        width: Of each one's features.
    """

    def __init__(self, lightness: nn.Module, colour: nn.Module, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([lightness, colour])
        self.width = 2 * width

    def forward(self, x: Tensor) -> Tensor:  # [b, 3, h, w] -> [b, 2 width]
        views = split_lab(x)
        return torch.cat([part(v) for part, v in zip(self.parts, views, strict=True)], 1)


class Lightness(nn.Module):
    """A network that sees the lightness of colour images alone.

    Args:
        network: Maps `[b, 1, h, w]` to `[b, width]`.
        width: Of its features.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, x: Tensor) -> Tensor:  # [b, 3, h, w] -> [b, width]
        return self.network(split_lab(x)[0])
