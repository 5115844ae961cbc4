"""Random views of images, one operation after the other, as torchvision has them in float.

Pixels are numbers from 0 to 1 here, `[c, height, width]`. What each operation equals in
torchvision.transforms.v2.functional stands in its docstring.
"""

import itertools

import torch
from torch import Tensor
from torch.nn import functional

FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}
GREY = 0.2989, 0.587, 0.114


def random_views(
    images, offsets, sizes, parameters, size, kernel, mean, deviation, dtype, channels_last_in,
    channels_last_out,
):  # fmt: skip
    """`[V, b, c, size, size]`, or `[V, b, size, size, c]` where channels_last_out."""
    b, views, _ = parameters.shape
    c = channels(images, offsets, channels_last_in)
    out = torch.empty(views, b, c, size, size, dtype=dtype, device=images.device)
    for i in range(b):
        x = image(images, offsets, sizes, channels_last_in, i)
        x = x.to(torch.float32) / FULL_SCALE[images.dtype]
        for v, drawn in enumerate(parameters[i].tolist()):
            y = one_view(x, drawn, size, kernel)
            out[v, i] = (y - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    return out.permute(0, 1, 3, 4, 2).contiguous() if channels_last_out else out


def random_views_(
    images, offsets, sizes, parameters, kernel, mean, deviation, channels_last_in,
    channels_last_out, out,
) -> None:  # fmt: skip
    """The same, written to out."""
    out.copy_(random_views(
        images, offsets, sizes, parameters, out.shape[3], kernel, mean, deviation, out.dtype,
        channels_last_in, channels_last_out,
    ))  # fmt: skip


def image_views_(
    image, parameters, row, kernel, mean, deviation, channels_last_out, out, place
) -> None:
    """The views of one image `[h, w, c]` by a row of `[b, V, 13]`, written to one place of out,
    `[V, n, c, size, size]` or `[V, n, size, size, c]`, where each view is one piece."""
    views = random_views(
        image[None], None, None, parameters[row : row + 1], out.shape[3], kernel, mean, deviation,
        out.dtype, True, channels_last_out,
    )  # fmt: skip
    out[:, place] = views[:, 0]


def channels(images: Tensor, offsets: Tensor | None, channels_last: bool) -> int:
    """Of every image; those of any sizes are `[pixels, c]`."""
    return images.shape[1 if offsets is None and not channels_last else -1]


def image(images, offsets, sizes, channels_last: bool, i: int) -> Tensor:
    """Image i as `[c, h, w]`."""
    if offsets is None:
        return images[i].permute(2, 0, 1) if channels_last else images[i]
    c, start, (h, w) = images.shape[1], int(offsets[i]), sizes[i].tolist()
    return images.view(-1)[start : start + h * w * c].view(h, w, c).permute(2, 0, 1)


def one_view(x: Tensor, drawn: list[float], size: int, kernel: int) -> Tensor:
    """The operations in their order; drawn are the parameters of one view."""
    top, left, height, width, mirror, *factors, order, grey, sigma, threshold = drawn
    x = resized_crop(x, int(top), int(left), int(height), int(width), size)
    x = x.flip(-1) if mirror else x
    adjust = brightness, contrast, saturation, hue
    for k in list(itertools.permutations(range(4)))[int(order)]:
        x = x if factors[k] == (1, 1, 1, 0)[k] else adjust[k](x, factors[k])
    x = greyscale(x).expand_as(x) if grey else x
    x = blur(x, kernel, sigma) if sigma > 0 else x
    return torch.where(x >= threshold, 1 - x, x) if threshold <= 1 else x


def resized_crop(x: Tensor, top: int, left: int, height: int, width: int, size: int) -> Tensor:
    """resized_crop with bilinear interpolation and antialiasing."""
    x = x[:, top : top + height, left : left + width]
    return functional.interpolate(
        x[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )[0]


def brightness(x: Tensor, factor: float) -> Tensor:
    """adjust_brightness"""
    return (x * factor).clamp(0, 1)


def contrast(x: Tensor, factor: float) -> Tensor:
    """adjust_contrast: away from the mean of the grey image."""
    return (x * factor + greyscale(x).mean() * (1 - factor)).clamp(0, 1)


def saturation(x: Tensor, factor: float) -> Tensor:
    """adjust_saturation: away from the grey image."""
    return (x * factor + greyscale(x) * (1 - factor)).clamp(0, 1)


def hue(x: Tensor, turns: float) -> Tensor:
    """adjust_hue: around the circle of six colours, with value and chroma as they are."""
    value, chroma = x.amax(0), x.amax(0) - x.amin(0)
    r, g, b = (x - x.amin(0)) / torch.where(chroma > 0, chroma, 1)
    angle = torch.where(b == 1, 4 + r - g, 0.0)
    angle = torch.where(g == 1, 2 + b - r, angle)
    angle = torch.where(r == 1, g - b, angle)
    angle = angle + 6 * turns
    # A channel falls from the value by the share of the chroma that its distance from the colour
    # says: not at all within one sixth of a turn, wholly from two sixths on.
    distance = torch.stack([(angle - at + 3).remainder(6) - 3 for at in (0, 2, 4)]).abs()
    return value - chroma * (distance - 1).clamp(0, 1)


def greyscale(x: Tensor) -> Tensor:
    """rgb_to_grayscale, `[1, h, w]`."""
    return sum(weight * channel for weight, channel in zip(GREY, x, strict=True))[None]


def blur(x: Tensor, kernel: int, sigma: float) -> Tensor:
    """gaussian_blur with reflected borders, one direction after the other."""
    half = kernel // 2
    distance = torch.arange(-half, half + 1, device=x.device)
    weights = (-((distance / sigma) ** 2) / 2).softmax(0).to(x.dtype)
    x = functional.pad(x[:, None], (half, half, half, half), mode="reflect")
    x = functional.conv2d(x, weights.view(1, 1, -1, 1))
    return functional.conv2d(x, weights.view(1, 1, 1, -1))[:, 0]
