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
def resized(
    x,  # of the first channel of one image
    elements,  # from there to the end of all images
    top,
    left,
    height,
    width,
    mirror,
    i,  # [BLOCK] pixels of the view
    size,
    row_stride,
    column_stride,
    channel_stride,
    FULL: tl.constexpr,  # what 1 is in the image
    THREE: tl.constexpr,
):
    """Three channels of the pixels, or one in the place of each: [BLOCK]."""
    row, column = i // size, i % size
    column = tl.where(mirror, size - 1 - column, column)
    y, rows, above, inverse_y, most_y = _axis(row, height, size)
    z, columns, before, inverse_x, most_x = _axis(column, width, size)
    inside = row < size
    r = tl.zeros_like(above)
    g, b, total = r, r, r
    for dy in range(0, most_y):
        weight = _weight(dy, rows, above, inverse_y)
        line = (top + y + dy).to(tl.int64) * row_stride + (left + z).to(tl.int64) * column_stride
        for dx in range(0, most_x):
            w = weight * _weight(dx, columns, before, inverse_x)
            at = line + dx * column_stride
            seen = inside & (w > 0)
            total += w
            r += w * tl.load(x + at, mask=seen & (at < elements), other=0).to(tl.float32)
            if THREE:
                at += channel_stride
                g += w * tl.load(x + at, mask=seen & (at < elements), other=0).to(tl.float32)
                at += channel_stride
                b += w * tl.load(x + at, mask=seen & (at < elements), other=0).to(tl.float32)
    total = tl.where(inside, total, 1.0) * FULL
    r = tl.div_rn(r, total)
    if THREE:
        g, b = tl.div_rn(g, total), tl.div_rn(b, total)
    return r, g, b
