"""A picture of images above what the network sees of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAP = 4  # white pixels between two pictures


def contact_sheet(module: nn.Module, images: Sequence[Tensor], side: int) -> Tensor:
    """The images in the first row and a row for every view below.

    Args:
        module: Of `fastcl.views`, without mean and deviation.
        images: uint8 `[c, h, w]` each, of 1 or 3 channels.
        side: Of the place of an image, in pixels; views are this large at most, and magnified by
            whole numbers where they are smaller.

    Returns:
        uint8 `[3, height, width]`.
    """
    alike = len({x.shape for x in images}) == 1
    made = module(torch.stack(list(images)) if alike else list(images))
    groups = made if isinstance(made, list) else [made if made.dim() == 5 else made[None]]
    largest = max(group.shape[-1] for group in groups)
    zoom = max(1, side // largest)
    rows = [[_fitted(x.float() / 255, side) for x in images]]
    for view in (view for group in groups for view in group.clamp(0, 1).float()):
        magnified = view.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
        rows.append([_placed(x, x.shape[1], side) for x in magnified])
    sheet = torch.cat([torch.cat(row, dim=2) for row in rows], dim=1)
    return (sheet[:, :-GAP, :-GAP] * 255).round().to(torch.uint8)


def _fitted(x: Tensor, side: int) -> Tensor:
    """A whole image in its place, as large as it fits."""
    h, w = x.shape[1:]
    size = [max(1, round(length * side / max(h, w))) for length in (h, w)]
    smooth = {"mode": "bilinear", "antialias": True, "align_corners": False}
    options = {"mode": "nearest"} if max(h, w) <= side // 2 else smooth
    return _placed(F.interpolate(x[None], size, **options)[0].clamp(0, 1), side, side)


def _placed(x: Tensor, height: int, width: int) -> Tensor:
    """In the middle of a white place with its share of the gaps, in colour."""
    x = x.expand(3, -1, -1)
    down, across = height - x.shape[1], width - x.shape[2]
    edges = across // 2, across - across // 2 + GAP, down // 2, down - down // 2 + GAP
    return F.pad(x, edges, value=1.0)
