"""What a view does to the colours of a block of pixels, numbers from 0 to 1; no bytes of its own.

Equations: fastcl/reference/random_views.py, operation by operation.
"""

import triton
import triton.language as tl

BRIGHTNESS, CONTRAST, SATURATION, HUE = (tl.constexpr(i) for i in range(4))


@triton.jit
def permutation(order):
    """The order of the four operations, two bits each, from its place among all in their order."""
    first, second, third = order // 6, order % 6 // 2, order % 2
    second += (second >= first).to(tl.int32)
    low, high = tl.minimum(first, second), tl.maximum(first, second)
    third += (third >= low).to(tl.int32)
    third += (third >= high).to(tl.int32)
    return first | second << 2 | third << 4 | (6 - first - second - third) << 6


@triton.jit
def place_of(operation, steps):
    """When an operation comes, of four."""
    at = 3
    at = tl.where((steps >> 4 & 3) == operation, 2, at)
    at = tl.where((steps >> 2 & 3) == operation, 1, at)
    return tl.where((steps & 3) == operation, 0, at)


@triton.jit
def greyscale(r, g, b):
    return 0.2989 * r + 0.587 * g + 0.114 * b


@triton.jit
def _clamp(x):
    """To what a pixel may be; NaN stays."""
    return tl.where(x < 0, 0.0, tl.where(x > 1, 1.0, x))


@triton.jit
def _away(r, g, b, factor, centre):
    """From the centre, by a factor."""
    rest = centre * (1 - factor)
    return _clamp(r * factor + rest), _clamp(g * factor + rest), _clamp(b * factor + rest)


@triton.jit
def _channel(value, chroma, angle, at: tl.constexpr):
    """Of a hue: it falls with the distance from its colour on the circle of six."""
    x = angle - at + 3
    distance = tl.abs(x - 6 * tl.floor(x / 6) - 3)
    return value - chroma * _clamp(distance - 1)


@triton.jit
def _hue(r, g, b, turns):
    value, low = tl.maximum(tl.maximum(r, g), b), tl.minimum(tl.minimum(r, g), b)
    chroma = value - low
    inverse = 1 / tl.where(chroma > 0, chroma, 1.0)
    blue, green = 4 + (r - g) * inverse, 2 + (b - r) * inverse
    angle = tl.where(r == value, (g - b) * inverse, tl.where(g == value, green, blue))
    angle += 6 * turns
    return (
        _channel(value, chroma, angle, 0), _channel(value, chroma, angle, 2),
        _channel(value, chroma, angle, 4),
    )  # fmt: skip


@triton.jit
def coloured(
    r,  # [BLOCK]
    g,
    b,
    begin,  # of the four operations, those from here
    end,
    steps,  # their order
    brightness,
    contrast,
    saturation,
    hue,
    mean,  # of the grey image where the contrast comes
):
    """Those operations in their order; what changes nothing is not done."""
    for step in range(begin, end):
        operation = steps >> (2 * step) & 3
        if (operation == BRIGHTNESS) & (brightness != 1):
            r, g, b = _clamp(r * brightness), _clamp(g * brightness), _clamp(b * brightness)
        if (operation == CONTRAST) & (contrast != 1):
            r, g, b = _away(r, g, b, contrast, mean)
        if (operation == SATURATION) & (saturation != 1):
            r, g, b = _away(r, g, b, saturation, greyscale(r, g, b))
        if (operation == HUE) & (hue != 0):
            r, g, b = _hue(r, g, b, hue)
    return r, g, b
