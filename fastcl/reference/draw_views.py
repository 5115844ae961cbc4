"""The parameters of random views out of numbers from 0 to 1, by torchvision's rules."""

import torch
from torch import Tensor

TRIES = 10  # torchvision's, before it takes the middle of the image
NEVER = 2.0  # a threshold that no pixel reaches

# Rows of the random numbers. A chance is drawn as u - p, which is below zero where it comes true.
AREA, RATIO = slice(0, TRIES), slice(TRIES, 2 * TRIES)
PLACE = slice(20, 22)
FACTORS = slice(22, 26)
ORDER, SIGMA = slice(26, 27), slice(27, 28)
JITTER, MIRROR, GREY, BLUR, SOLARISE = range(28, 33)
DRAWS = 33


def draw_views(
    chances: Tensor,  # [DRAWS, b, views] from 0 to below 1
    sizes: Tensor,  # [b or 1, 2] int64, height and width of the images
    middle: Tensor | None,  # [2, b or 1, views] what `middle_box` makes of the rest
    low: Tensor,  # [DRAWS, 1, views] what becomes of 0
    span: Tensor,  # [DRAWS, 1, views] and how far from it what becomes of 1
    ratio: Tensor,  # [2, 1, views] narrowest and widest
    threshold: Tensor,  # [1, views]
    shares: Tensor | None,  # [1, views] of the shorter side in the middle, 0: a random crop
) -> Tensor:
    """`[b, views, 13]`"""
    x = torch.addcmul(low, span, chances)
    sides = sizes.t().unsqueeze(2).to(x.dtype)  # [2, b or 1, 1]
    if middle is None:
        middle = middle_box(sizes, ratio, shares)
    return _assembled(x, _boxes(x, sides, middle, shares), threshold)


def _assembled(x: Tensor, box: Tensor, threshold: Tensor) -> Tensor:
    came_true = x[JITTER:] < 0
    identity = torch.cat([x.new_ones(3, 1, 1), x.new_zeros(1, 1, 1)])
    factors = torch.where(came_true[0], x[FACTORS], identity)
    flags = came_true[1:4].to(x.dtype)  # mirror, grey, blur
    threshold = torch.where(came_true[4:], threshold, NEVER)
    # None of the products of u reaches its upper end: u is at most 1 - 2^-24.
    rows = [box, flags[:1], factors, x[ORDER].floor(), flags[1:2], x[SIGMA] * flags[2:], threshold]
    return torch.cat(rows).permute(1, 2, 0).contiguous()


def _boxes(x: Tensor, sides: Tensor, middle: Tensor, shares: Tensor | None) -> Tensor:
    """Top, left, height and width of the crops `[4, b, views]`: the first try that fits."""
    area, stretch = x[AREA] * sides.prod(0), x[RATIO].exp()
    tried = torch.stack([area / stretch, area * stretch]).sqrt_().round_()
    fits = (tried > 0).logical_and_(tried <= sides.unsqueeze(1))
    # The first that fits, by its rank: argmax over a dimension that is not the last is slow.
    rank = torch.arange(TRIES, 0, -1, device=x.device).view(TRIES, 1, 1)
    best = (rank * (fits[0] & fits[1])).amax(0)
    found = best > 0
    first = (TRIES - best).clamp_(max=TRIES - 1).expand(2, 1, -1, -1)
    box = tried.gather(1, first).squeeze(1)
    if shares is not None:
        found = found & (shares == 0)
    box = torch.where(found, box, middle)
    room = sides - box
    corner = torch.where(found, x[PLACE] * (room + 1), room / 2).floor_()
    return torch.cat([corner, box])


def middle_box(sizes: Tensor, ratio: Tensor, shares: Tensor | None) -> Tensor:
    """The box `[2, b or 1, views]` in the middle: the image, cut down to the ratios allowed."""
    height, width = sizes.t().unsqueeze(2).to(ratio.dtype)
    narrow, wide = ratio
    high = torch.where(width < narrow * height, (width / narrow).round_().clamp_(min=1), height)
    broad = torch.where(width > wide * height, (height * wide).round_().clamp_(min=1), width)
    box = torch.stack(torch.broadcast_tensors(high, broad))
    if shares is None:
        return box
    square = (shares * torch.minimum(height, width)).round_().clamp_(min=1)
    return torch.where(shares == 0, box, square)
