"""Jigsaw: in which order are the tiles?"""

from functools import lru_cache
from itertools import permutations
from math import factorial

import numpy as np
import torch
from torch import Tensor, nn

from .. import _check
from .base import Pretext, check_images, crop

# All orders of 9 tiles are looked at; of 16 there would be 2e13.
MOST_TILES = 9


@lru_cache(maxsize=8)
def _permutation_set(tiles: int, count: int) -> np.ndarray:
    # One row per place: sums over places then run along the rows, ten times faster.
    orders = np.array(list(permutations(range(tiles))), dtype=np.int8).T.copy()
    chosen = [0]
    nearest, total = (np.full(orders.shape[1], x, dtype=np.int32) for x in (tiles, 0))
    for _ in range(count - 1):
        distance = (orders != orders[:, chosen[-1:]]).sum(0, dtype=np.int8)
        nearest, total = np.minimum(nearest, distance), total + distance
        # The sum decides between orders that are equally far from their nearest.
        chosen.append(int((nearest.astype(np.int64) * (tiles * count + 1) + total).argmax()))
    return orders.T[chosen].astype(np.int64)


def permutation_set(tiles: int, count: int) -> Tensor:
    """`count` orders of the tiles, far from each other in Hamming distance.

    Greedy, from the identity on: the next order is the one farthest from its nearest of those
    chosen, by the larger sum of distances where there are several. The paper's algorithm 1 looks
    at the average alone, which lets single pairs come as near as 2. For 64 orders of 9 tiles the
    smallest distance is 7.

    Args:
        tiles: From 2 to 9.
        count: From 2 to `tiles!`.

    Returns:
        int64 `[count, tiles]`; place i of an order holds the tile that is shown there.

    Raises:
        ValueError: tiles or count out of range.
    """
    _check.count("tiles", tiles)
    _check.count("count", count)
    if not 2 <= tiles <= MOST_TILES:
        raise ValueError(f"tiles must be from 2 to {MOST_TILES}, got {tiles}")
    if not 2 <= count <= factorial(tiles):
        raise ValueError(f"count must be from 2 to {factorial(tiles)}, got {count}")
    return torch.from_numpy(_permutation_set(tiles, count).copy())


class Jigsaw(Pretext):
    """Which of a set of permutations were the tiles of a grid shown in?

    Shortcuts, closed as in the paper: a tile is cut at a random place of its cell, so that edges
    do not continue from one tile to the next (64 of 75 pixels there, 11/75 of the cell here);
    every tile is normalised by its own mean and deviation; against chromatic aberration, colour
    images are grey with some probability, and the channels of the others are shifted against each
    other by up to two pixels.

    Args:
        backbone: Maps tiles to features `[b, width]`; one network for all tiles.
        width: Features of the backbone.
        grid: Tiles along a side, 2 or 3.
        permutations: Size of the set; 24 is all there are for a grid of 2.
        hidden: Width inside the classifier.
        gray: Probability that a colour image is shown in grey.
        shift: Largest shift of a channel either way, in pixels.

    Raises:
        ValueError: A choice out of range, or in the forward images below two pixels per tile.

    Source: Noroozi and Favaro 2016, "Unsupervised Learning of Visual Representations by Solving
    Jigsaw Puzzles", sections 3.2 and 3.3.
    """

    order: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        grid: int = 3,
        permutations: int = 64,
        hidden: int = 512,
        gray: float = 0.3,
        shift: int = 2,
    ) -> None:
        super().__init__()
        _check.count("width", width)
        _check.count("hidden", hidden)
        _check.one_of("grid", grid, (2, 3))
        if not 0 <= _check.finite("gray", gray) <= 1:
            raise ValueError(f"gray must be from 0 to 1, got {gray}")
        if isinstance(shift, bool) or not isinstance(shift, int) or shift < 0:
            raise ValueError(f"shift must be an integer from 0, got {shift!r}")
        self.grid, self.gray, self.shift = grid, gray, shift
        self.register_buffer("order", permutation_set(grid * grid, permutations))
        self.backbone = backbone
        self.classifier = nn.Sequential(
            nn.Linear(grid * grid * width, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, permutations),
        )

    def draw(self, images: Tensor) -> tuple[Tensor, Tensor]:  # [b, channels, side, side]
        """Tiles in the order shown `[b, grid^2, channels, tile, tile]`, and int64 orders `[b]`."""
        check_images(images, smallest=2 * self.grid)
        b, channels = images.shape[:2]
        device = images.device
        if channels == 3:
            images = self._without_aberration(images)
        label = torch.randint(len(self.order), (b,), device=device)
        tiles = standardize(self._tiles(images))
        return tiles[torch.arange(b, device=device)[:, None], self.order[label]], label

    def loss(self, tiles: Tensor, label: Tensor) -> Tensor:
        features = self.backbone(tiles.flatten(0, 1))
        return self.cross_entropy(self.classifier(features.reshape(len(label), -1)), label)

    def _tiles(self, images: Tensor) -> Tensor:
        """Tiles in their own order, each from a random place of its cell."""
        b, side = len(images), images.shape[2]
        cell = side // self.grid
        gap = min(max(1, round(cell * 11 / 75)), cell - 1)
        found = []
        for place in range(self.grid**2):
            corner = torch.tensor(divmod(place, self.grid), device=images.device) * cell
            top, left = corner[:, None] + torch.randint(gap + 1, (2, b), device=images.device)
            found.append(crop(images, top, left, cell - gap))
        return torch.stack(found, 1)

    def _without_aberration(self, images: Tensor) -> Tensor:
        b, device = len(images), images.device
        if self.shift:
            images = shift_channels(
                images, torch.randint(-self.shift, self.shift + 1, (b, 3, 2), device=device)
            )
        gray = torch.rand(b, 1, 1, 1, device=device) < self.gray
        return torch.where(gray, images.mean(1, keepdim=True), images)


def shift_channels(
    images: Tensor,  # [b, channels, side, side]
    offset: Tensor,  # [b, channels, 2] int64, down and right
) -> Tensor:
    """Every channel moved by its own pixels; the border repeats."""
    side = images.shape[2]
    places = torch.arange(side, device=images.device)
    rows, columns = (
        (places - offset[..., i, None]).clamp(0, side - 1) for i in range(2)
    )  # [b, channels, side]
    moved = images.gather(2, rows[..., None].expand_as(images))
    return moved.gather(3, columns[:, :, None].expand_as(images))


def standardize(tiles: Tensor) -> Tensor:
    """Zero mean and unit deviation of every tile `[..., channels, h, w]`; a flat one is zero."""
    mean = tiles.mean((-3, -2, -1), keepdim=True)
    deviation = tiles.std((-3, -2, -1), keepdim=True, correction=0)
    return (tiles - mean) / deviation.clamp(min=1e-5)
