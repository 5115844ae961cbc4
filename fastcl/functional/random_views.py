"""Random views of images: crop, mirror, colours, blur and normalisation in one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _check
from .._buffers import Buffers
from .._library import ops
from .packed import Packed, pack
from .view_memory import apart, laid_out, memory_like, written
from .view_parameters import check_parameters, check_places, check_values

PIXELS = (torch.uint8, torch.uint16, torch.float32)
VIEWS = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("chw", "hwc")
LARGEST = 1 << 15  # side of a view
SMALLEST = torch.finfo(torch.float32).tiny  # deviation


@torch.no_grad()
def random_views(
    images: Tensor | Packed | Sequence[Tensor],
    parameters: Tensor,  # [b, V, 13]
    *,
    size: int,
    kernel: int = 23,
    mean: Sequence[float] | Tensor | None = None,
    deviation: Sequence[float] | Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    layout: str = "chw",
    out: Tensor | None = None,
) -> Tensor:
    """V views of every image, resized, mirrored, coloured, blurred and normalised.

    Equal to, for every image and view, the operations of torchvision.transforms.v2.functional on
    pixels from 0 to 1: ``resized_crop(antialias=True)``, ``horizontal_flip``,
    ``adjust_brightness``, ``adjust_contrast``, ``adjust_saturation`` and ``adjust_hue`` in the
    order of the record, ``rgb_to_grayscale``, ``gaussian_blur``, ``solarize`` and ``normalize``.

    Args:
        images: `[b, c, h, w]` or, with `layout="hwc"`, `[b, h, w, c]`; a sequence of `[c, h, w]`
            of any sizes; or `Packed`. uint8 or uint16 of full scale 255 or 65535, or float32 from
            0 to 1.
        parameters: float32 `[b, V, 13]`: top, left, height and width of the crop in whole pixels
            of the image; mirror, 0 or 1; the factors of brightness, contrast and saturation and
            the shift of the hue in turns, from -0.5 to 0.5; their order, the place in the sorted
            list of their permutations; grey, 0 or 1; sigma of the blur in pixels of the view,
            0 for none; the share of full scale from which on pixels are inverted, above 1 for
            none. Colours (the factors, hue and grey) need three channels. On a GPU the values are
            not looked at, but limited to what they may be; of other than three channels the
            colours stay as they are.
        size: Pixels along a side of a view.
        kernel: Taps of the blur, odd; the border is reflected, so half of them must be fewer than
            size.
        mean: `[c]`, subtracted, in units of full scale; None: zeros.
        deviation: `[c]`, above zero, divides what is left; None: ones.
        dtype: Of the views, float32, bfloat16 or float16.
        memory_format: Of each view, contiguous or `torch.channels_last`.
        layout: Of a batch of one size, "chw", in either memory format, or "hwc".
        out: What an earlier call of this shape, dtype and memory format returned, to be written
            again and returned: memory that is new to a process takes time of its own.

    Returns:
        `[V, b, c, size, size]`.

    Raises:
        ValueError: Images without pixels, offsets or crops beyond them, parameters that are out
            of range, an even kernel or one too large, a deviation that is not positive, an out
            that is not what will be returned or lies in the memory of the images.
        TypeError: Not tensors, or of another dtype.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
    Representations", appendix A; torchvision's functional operations.
    """
    return made(
        images, parameters, size, kernel, mean, deviation, dtype, memory_format, layout, out
    )


def made(
    images, parameters, size, kernel, mean, deviation, dtype, memory_format, layout, out,
    memory: Buffers | None = None,
) -> Tensor:  # fmt: skip
    """`random_views`; on the CPU memory that was let go serves again."""
    _check.one_of("layout", layout, LAYOUTS)
    last = layout == "hwc"
    pixels, offsets, sizes = _images(images, last)
    given = pixels
    # An exported program may be given another memory format than its example had.
    if offsets is None and not (last or pixels.is_contiguous() or torch.compiler.is_exporting()):
        last = pixels.is_contiguous(memory_format=torch.channels_last)
        pixels = pixels.permute(0, 2, 3, 1) if last else pixels
    last = last and offsets is None
    channels = pixels.shape[1 if offsets is None and not last else -1]
    _count_and_kernel(size, kernel)
    mean, deviation = normal(mean, deviation, channels, pixels.device)
    check_form(dtype, memory_format)
    sides = pixels.shape[1:3] if last else pixels.shape[2:]
    check_parameters(parameters, pixels, sizes)
    pixels, parameters = _end_to_end(pixels), _end_to_end(parameters)
    ends = last, memory_format == torch.channels_last
    shape = parameters.shape[1], parameters.shape[0], channels, size, size
    if out is None and memory is not None and _check.seen(pixels):
        out = memory.like(memory_like(shape, dtype, memory_format))
    if out is not None:
        end_to_end = laid_out(out, shape, dtype, memory_format, pixels.device)
        apart(end_to_end, "images", given)
        apart(end_to_end, "parameters", parameters)
    arguments = pixels, offsets, sizes, parameters
    try:
        if out is not None:
            ops.random_views_(*arguments, kernel, mean, deviation, *ends, end_to_end)
            written(out)
            return out
        views = ops.random_views(*arguments, size, kernel, mean, deviation, dtype, *ends)
        # Detached, it is no view, which could not be changed in place where gradients are on.
        return views.permute(0, 1, 4, 2, 3).detach() if ends[1] else views
    except RuntimeError as error:  # the operator looks at every value before it writes
        refused = error
    check_places(pixels, offsets, sizes)
    check_values(parameters, sizes, sides, channels)
    raise refused


def _end_to_end(x: Tensor) -> Tensor:
    # Of an example that is, an exported program would keep no step that makes others so.
    exported = torch.compiler.is_exporting()
    return x.clone(memory_format=torch.contiguous_format) if exported else x.contiguous()


def _images(images, last: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Pixels, and offsets and sizes where the images may be of any size."""
    if isinstance(images, Packed):
        _packed(images)
        pixels, offsets, sizes = images
        return _end_to_end(pixels), _end_to_end(offsets), _end_to_end(sizes)
    if isinstance(images, Sequence):
        images = pack(images)
        _pixels("images", images.pixels)
        return images
    _check.tensor("images", images)
    _pixels("images", images)
    if images.dim() != 4:
        shape = "[b, h, w, c]" if last else "[b, c, h, w]"
        raise ValueError(f"images must have 4 dimensions {shape}, got shape {list(images.shape)}")
    if 0 in images.shape:
        raise ValueError(f"images must have pixels, got shape {list(images.shape)}")
    return images, None, None


def _packed(images: Packed) -> None:
    pixels, offsets, sizes = images
    _check.tensor("pixels", pixels)
    _pixels("pixels", pixels)
    if pixels.dim() != 2 or pixels.numel() == 0:
        raise ValueError(
            f"pixels must have 2 dimensions [n, c] and not be empty, got shape {list(pixels.shape)}"
        )
    _check.tensor("offsets", offsets)
    _check.state("offsets", offsets, pixels.device, (offsets.numel(),))
    _check.state("sizes", sizes, pixels.device, (offsets.numel(), 2))
    if offsets.numel() == 0:
        raise ValueError("offsets must have one image at least, got none")


def _pixels(name: str, x: Tensor) -> None:
    if x.dtype not in PIXELS:
        raise TypeError(f"{name} must be uint8, uint16 or float32, got {x.dtype}")


def _count_and_kernel(size: int, kernel: int) -> None:
    check_side("size", size)
    _check.count("kernel", kernel)
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, got {kernel}")
    if kernel // 2 >= size:
        raise ValueError(
            f"kernel must be below {2 * size} for views of size {size}, as borders are reflected, "
            f"got {kernel}"
        )


def check_side(name: str, size: int) -> None:
    """Pixels along a side of a view."""
    _check.count(name, size)
    if size > LARGEST:
        raise ValueError(f"{name} must be from 1 to {LARGEST}, got {size}")


def check_form(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """How the views are to be written."""
    _check.one_of("dtype", dtype, VIEWS)
    formats = torch.contiguous_format, torch.channels_last
    _check.one_of("memory_format", memory_format, formats)


def normal(mean, deviation, channels: int, device) -> tuple[Tensor, Tensor]:
    """Mean and deviation as float32 `[channels]`."""
    mean = _per_channel("mean", mean, 0.0, channels, device)
    deviation = _per_channel("deviation", deviation, 1.0, channels, device)
    _check.bounded("mean", mean)
    _check.above_zero("deviation", deviation)
    if _check.seen(deviation) and min(deviation.tolist()) < SMALLEST:  # one over it is infinite
        raise ValueError(f"deviation must be {SMALLEST:.3g} or more, got {deviation.tolist()}")
    return mean, deviation


def numbers(name: str, x, device: torch.device | None = None) -> Tensor:
    """One or more as float32 `[n]`, where they are or on a device."""
    try:
        return torch.as_tensor(x, dtype=torch.float32, device=device).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be numbers, one for each channel, got {x!r}") from None


def _per_channel(name, x, default: float, channels: int, device) -> Tensor:
    """float32 `[c]` of numbers or a tensor."""
    if x is None:
        return torch.full((channels,), default, dtype=torch.float32, device=device)
    if not isinstance(x, Tensor):
        x = numbers(name, x, device)
    _check.vector(name, x, channels, device)
    return x.to(torch.float32).contiguous()
