"""Pixels of a view out of an image: a crop, reduced or enlarged, perhaps mirrored.

Triangles as wide as a pixel of the view, or of the image where that is larger, as torchvision's
antialiasing has them; every pixel is a sum over all taps of both directions, so few of them (four
to sixteen) cost least, and a crop many times the size of the view costs their square.
"""

import triton
import triton.language as tl


@triton.jit
def _axis(i, length, size):
    """Of pixels i along a side of the view: the first of the crop, how many, where it stands in the
    triangle, one over half its width, and how many there are at most."""
    scale = tl.div_rn(length.to(tl.float32), tl.cast(size, tl.float32))
    support = tl.maximum(scale, 1.0)
    centre = scale * (i.to(tl.float32) + 0.5)
    low = tl.maximum((centre - support + 0.5).to(tl.int32), 0)
    high = tl.minimum((centre + support + 0.5).to(tl.int32), length)
    away = low.to(tl.float32) - centre + 0.5
    return low, high - low, away, 1.0 / support, tl.ceil(2 * support).to(tl.int32)


@triton.jit
def _weight(tap, count, away, inverse):
    """Of a pixel of the crop, the tap-th."""
    weight = tl.maximum(1.0 - tl.abs((away + tap) * inverse), 0.0)
    return tl.where(tap < count, weight, 0.0)


@triton.jit
def _among(first, tap, count):
    """The tap-th pixel; a tap too many weighs nothing and reads the last one again."""
    return first + tl.minimum(tap, count - 1)


@triton.jit
def resized(
    x,  # of the first channel of one image
    top,
    left,
    height,
    width,
    mirror,
    row,  # [ROWS] of the view
    column,  # [COLUMNS]
    size,
    row_stride,
    column_stride,
    channel_stride,
    FULL: tl.constexpr,  # what 1 is in the image
    THREE: tl.constexpr,
):
    """Three channels of the pixels, or one in the place of each: [ROWS, COLUMNS]."""
    # Beyond the border a mirrored column would lie before the first pixel.
    column = tl.where(mirror, tl.maximum(size - 1 - column, 0), column)
    y, rows, above, inverse_y, most_y = _axis(row, height, size)
    z, columns, before, inverse_x, most_x = _axis(column, width, size)
    total_y, total_x = tl.zeros_like(above), tl.zeros_like(before)
    for dx in range(0, most_x):
        total_x += _weight(dx, columns, before, inverse_x)
    r = above[:, None] * before[None, :] * 0.0
    g, b = r, r
    for dy in range(0, most_y):
        weight = _weight(dy, rows, above, inverse_y)
        total_y += weight
        line = x + (top + _among(y, dy, rows)).to(tl.int64) * row_stride
        for dx in range(0, most_x):
            w = weight[:, None] * _weight(dx, columns, before, inverse_x)[None, :]
            place = (left + _among(z, dx, columns)).to(tl.int64) * column_stride
            at = line[:, None] + place[None, :]
            r += w * tl.load(at).to(tl.float32)
            if THREE:
                at += channel_stride
                g += w * tl.load(at).to(tl.float32)
                at += channel_stride
                b += w * tl.load(at).to(tl.float32)
    total = total_y[:, None] * total_x[None, :] * FULL
    total = tl.where(total > 0, total, 1.0)  # beyond the border
    r = tl.div_rn(r, total)
    if THREE:
        g, b = tl.div_rn(g, total), tl.div_rn(b, total)
    return r, g, b
