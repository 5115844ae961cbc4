"""Partial sums of the softmax contrast in plain PyTorch."""

import math

import torch
from torch import Tensor

BLOCK, TILE, COLUMNS = 64, 128, 256  # rows of a line of col_part, rows of a tile, columns of one


def contrast_sums_(
    q: Tensor,  # [n, d] unit rows
    k: Tensor,  # [m, d] unit rows
    scale: float,
    logit_scale: Tensor | None,  # []
    row_ids: Tensor | None,  # [n]
    col_ids: Tensor | None,  # [m]
    row_range: Tensor | None,  # [blocks of rows, 2] lowest and highest id; not needed here
    col_range: Tensor | None,  # [tiles of columns, 2]
    first: int,
    tiles: int,
    strip: int,
    processors: int,
    row_part: Tensor,  # [strips, n] out, where the row lies in these tiles
    col_part: Tensor,  # [at least 2 tiles, m] out
) -> None:
    """Sums of 2^(s log2(e) - c) over the negatives, c = floor(max(0, scale - 74) log2(e)).

    Of the row tiles first, first + 1, ...: along the rows in strips of `strip` tiles of columns,
    and down the columns per block of rows.
    """
    total = scale * (1.0 if logit_scale is None else float(logit_scale))
    shift = math.floor(max(0.0, total - 74) * math.log2(math.e))
    rows = slice(first * TILE, min((first + tiles) * TILE, len(q)))
    s = total * math.log2(math.e) * (q[rows].double() @ k.double().T)
    e = torch.exp2(s - shift)
    if row_ids is not None:
        e = e.masked_fill(row_ids[rows, None] == col_ids, 0)
    for part, columns in enumerate(e.split(strip * COLUMNS, 1)):
        row_part[part, rows] = columns.sum(1).to(row_part.dtype)
    col_part[: 2 * tiles] = 0
    for line, block in enumerate(e.split(BLOCK)):
        col_part[line] = block.sum(0).to(col_part.dtype)
