"""Random views of images in one launch: crop, mirror, colours, blur and normalisation.

    y_ij = sum_rc w_ir v_jc x_rc with triangles w and v, its colours, blurred by two lines of taps
Chen et al., arXiv:2002.05709, appendix A; operations: fastcl/reference/random_views.py.
Bytes: a crop once from memory, then from the first-level cache; of a view that is blurred or whose
contrast changes, float32 written and read once per pass; the view once.
The idea: a program takes one view after the other and keeps it in a scratch of its own, so that
what needs the whole view, the mean under the contrast and the blur, is a pass of that program and
no launch; a view that needs neither goes straight to its place. Memory is that of the programs.
"""

import torch
import triton
import triton.language as tl

from ..reference.random_views import FULL_SCALE, channels
from . import contrast_common as common
from .random_views_colour import CONTRAST, coloured, greyscale, permutation, place_of
from .random_views_resize import resized

RECORD = tl.constexpr(13)  # parameters of a view: fastcl/functional/view_parameters.py
BLOCK = 2048  # pixels at once: with four to a thread nothing spills
BLUR_BLOCK = 4096  # under the blur: what a tap costs beside its pixels is shared by eight
WIDEST = 256  # columns of a tile
WARPS = 16  # whose registers fill a multiprocessor: a program of each
# Standard deviations beyond which a tap of the blur is below 1e-9 of the one in the middle.
FAR = tl.constexpr(6.5)
NEARLY = tl.constexpr(1 - 2**-21)  # of a threshold that a level of whole numbers equals, as rounded
LARGEST = tl.constexpr(torch.finfo(torch.float32).max)


@triton.jit
def _limited(x, low, high):
    """What a parameter may be; NaN is the least of it."""
    return tl.where(x > low, tl.where(x < high, x, high), low)


@triton.jit
def _image(offsets, sizes, image, height, width, elements, CHANNELS: tl.constexpr):
    """Where an image begins, its height and its width, within all pixels that there are."""
    start = tl.cast(image, tl.int64) * CHANNELS * height * width
    if offsets is not None:
        start = _limited(tl.load(offsets + image), 0, elements - CHANNELS)
        most = (elements - start) // CHANNELS
        height = _limited(tl.load(sizes + 2 * image), 1, most)
        width = _limited(tl.load(sizes + 2 * image + 1), 1, most // height)
    return start, height, width


@triton.jit
def _finish(y, channel, i, inside, threshold, mean, deviation, out, size, CHANNELS, LAST):
    """Solarised and normalised to its place in the view."""
    y = tl.where(y >= threshold, 1 - y, y)
    y = (y - tl.load(mean + channel)) / tl.load(deviation + channel)
    at = i * CHANNELS + channel if LAST else channel * size * size + i
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _put(
    r, g, b, keep, first, i, inside, kept, threshold, mean, deviation, out, size, CHANNELS, LAST
):  # fmt: skip
    """Three channels, or the first of them, into the scratch or finished."""
    if keep:
        at = kept + first * size * size + i
        tl.store(at, r, mask=inside)
        if CHANNELS == 3:
            tl.store(at + size * size, g, mask=inside)
            tl.store(at + 2 * size * size, b, mask=inside)
    else:
        _finish(r, first, i, inside, threshold, mean, deviation, out, size, CHANNELS, LAST)
        if CHANNELS == 3:
            _finish(g, 1, i, inside, threshold, mean, deviation, out, size, CHANNELS, LAST)
            _finish(b, 2, i, inside, threshold, mean, deviation, out, size, CHANNELS, LAST)


@triton.jit
def _crop(record, h, w):
    """Top, left, height and width, within the image."""
    height = _limited(tl.load(record + 2), 1, tl.cast(h, tl.float32)).to(tl.int32)
    width = _limited(tl.load(record + 3), 1, tl.cast(w, tl.float32)).to(tl.int32)
    top = _limited(tl.load(record), 0, (h - height).to(tl.float32)).to(tl.int32)
    left = _limited(tl.load(record + 1), 0, (w - width).to(tl.float32)).to(tl.int32)
    return top, left, height, width


@triton.jit
def _factors(record):
    """Brightness, contrast, saturation and hue, and the order of them."""
    return (
        _limited(tl.load(record + 5), 0, LARGEST), _limited(tl.load(record + 6), 0, LARGEST),
        _limited(tl.load(record + 7), 0, LARGEST), _limited(tl.load(record + 8), -0.5, 0.5),
        permutation(_limited(tl.load(record + 9), 0, 23).to(tl.int32)),
    )  # fmt: skip


@triton.jit
def _reflected(i, size):
    """Pixels beyond the border are those as far before it."""
    i = tl.abs(i)
    return tl.where(i >= size, 2 * size - 2 - i, i)


@triton.jit
def _tile(tile, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows and columns of a tile of the view, its pixels' places in a plane and whether they are
    in it."""
    wide = tl.cdiv(size, COLUMNS)
    row = tile // wide * ROWS + tl.arange(0, ROWS)
    column = tile % wide * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < size)[:, None] & (column < size)[None, :]
    return row, column, row[:, None] * size + column[None, :], inside


@triton.jit
def _blurred(x, row, column, inside, size, sigma, reach, ALONG: tl.constexpr):
    """A tile of a plane under a line of taps, along the rows or down the columns."""
    line, total = row * size, 1.0
    y = tl.load(x + (line[:, None] + column[None, :]), mask=inside, other=0.0)
    for tap in range(1, reach + 1):
        distance = tap / sigma
        weight = tl.exp(-0.5 * distance * distance)
        total += 2 * weight
        if ALONG:
            before = line[:, None] + _reflected(column - tap, size)[None, :]
            after = line[:, None] + _reflected(column + tap, size)[None, :]
        else:
            before = (_reflected(row - tap, size) * size)[:, None] + column[None, :]
            after = (_reflected(row + tap, size) * size)[:, None] + column[None, :]
        y += weight * tl.load(x + before, mask=inside, other=0.0)
        y += weight * tl.load(x + after, mask=inside, other=0.0)
    return y * (1 / total)


@triton.jit(do_not_specialize=["count", "views", "elements", "height", "width", "reach"])
def views_kernel(
    images,  # [b, c, h, w] or [b, h, w, c], or pixels of images of any sizes [n, c]
    offsets,  # [b] element where an image begins, or None
    sizes,  # [b, 2] height and width, or None
    parameters,  # [b, views, RECORD]
    mean,  # [c]
    deviation,  # [c]
    scratch,  # [programs, 2, c, size, size] float32
    out,  # [views, b, c, size, size], or [views, b, size, size, c]
    count,  # b * views
    views,
    elements,  # of all images
    height,
    width,
    size,
    reach,  # taps of the blur on either side
    FULL: tl.constexpr,
    CHANNELS: tl.constexpr,
    LAST_IN: tl.constexpr,
    LAST_OUT: tl.constexpr,
    ROWS: tl.constexpr,  # of a tile
    BLUR_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    THREE: tl.constexpr = CHANNELS == 3
    STEP: tl.constexpr = 3 if THREE else 1
    pixels, tiles = size * size, tl.cdiv(size, ROWS) * tl.cdiv(size, COLUMNS)
    kept = scratch + tl.program_id(0).to(tl.int64) * 2 * CHANNELS * pixels
    turned = kept + CHANNELS * pixels
    for task in range(tl.program_id(0), count, tl.num_programs(0)):
        image, view = task // views, task % views
        start, h, w = _image(offsets, sizes, image, height, width, elements, CHANNELS)
        record = parameters + tl.cast(task, tl.int64) * RECORD
        top, left, box_h, box_w = _crop(record, h, w)
        mirror = tl.load(record + 4) != 0
        brightness, contrast, saturation, hue, steps = _factors(record)
        grey = (tl.load(record + 10) != 0) & THREE
        sigma = _limited(tl.load(record + 11), 0, LARGEST)
        threshold = tl.load(record + 12)
        reached = threshold * NEARLY if FULL > 1 else threshold
        threshold = tl.where(threshold <= 1, reached, float("nan"))  # which nothing reaches
        taps = tl.minimum(
            reach, tl.minimum(sigma * FAR, tl.cast(reach, tl.float32)).to(tl.int32) + 1
        )
        blur = sigma > 0
        row_stride, column_stride, channel_stride = w, 1, tl.cast(h, tl.int64) * w
        if LAST_IN:
            row_stride, column_stride, channel_stride = w * CHANNELS, CHANNELS, tl.cast(1, tl.int64)
        there = out + (tl.cast(view, tl.int64) * (count // views) + image) * CHANNELS * pixels
        cut = tl.where(contrast != 1, place_of(CONTRAST, steps), 4) if THREE else 4
        sums = tl.zeros([ROWS, COLUMNS], tl.float32)
        for first in range(0, CHANNELS, STEP):
            x = images + start + first * channel_stride
            for tile in range(0, tiles):
                row, column, i, inside = _tile(tile, size, ROWS, COLUMNS)
                r, g, b = resized(
                    x, top, left, box_h, box_w, mirror, row, column, size,
                    row_stride, column_stride, channel_stride, FULL, THREE,
                )  # fmt: skip
                if THREE:
                    r, g, b = coloured(
                        r, g, b, 0, cut, steps, brightness, contrast, saturation, hue, 0.0
                    )
                    sums += tl.where(inside, greyscale(r, g, b), 0.0)
                    if (cut == 4) & grey:
                        r = greyscale(r, g, b)
                        g, b = r, r
                _put(
                    r, g, b, (cut < 4) | blur, first, i, inside, kept,
                    threshold, mean, deviation, there, size, CHANNELS, LAST_OUT,
                )  # fmt: skip
        tl.debug_barrier()
        if THREE & (cut < 4):
            centre = tl.sum(tl.sum(sums, 1), 0) / pixels
            for tile in range(0, tiles):
                row, column, i, inside = _tile(tile, size, ROWS, COLUMNS)
                r = tl.load(kept + i, mask=inside, other=0.0)
                g = tl.load(kept + pixels + i, mask=inside, other=0.0)
                b = tl.load(kept + 2 * pixels + i, mask=inside, other=0.0)
                r, g, b = coloured(
                    r, g, b, cut, 4, steps, brightness, contrast, saturation, hue, centre
                )
                if grey:
                    r = greyscale(r, g, b)
                    g, b = r, r
                _put(
                    r, g, b, blur, 0, i, inside, kept,
                    threshold, mean, deviation, there, size, CHANNELS, LAST_OUT,
                )  # fmt: skip
            tl.debug_barrier()
        if blur:
            blur_tiles = tl.cdiv(size, BLUR_ROWS) * tl.cdiv(size, COLUMNS)
            for channel in range(0, tl.where(grey, 1, CHANNELS)):
                for tile in range(0, blur_tiles):
                    row, column, i, inside = _tile(tile, size, BLUR_ROWS, COLUMNS)
                    plane = kept + channel * pixels
                    y = _blurred(plane, row, column, inside, size, sigma, taps, False)
                    tl.store(turned + channel * pixels + i, y, mask=inside)
            tl.debug_barrier()
            for channel in range(0, CHANNELS):
                plane = turned + tl.where(grey, 0, channel) * pixels
                for tile in range(0, blur_tiles):
                    row, column, i, inside = _tile(tile, size, BLUR_ROWS, COLUMNS)
                    y = _blurred(plane, row, column, inside, size, sigma, taps, True)
                    _finish(
                        y, channel, i, inside,
                        threshold, mean, deviation, there, size, CHANNELS, LAST_OUT,
                    )  # fmt: skip
        tl.debug_barrier()


def random_views(
    images, offsets, sizes, parameters, size, kernel, mean, deviation, dtype, channels_last_in,
    channels_last_out,
):  # fmt: skip
    """`reference.random_views` in one launch."""
    b, views, _ = parameters.shape
    c = channels(images, offsets, channels_last_in)
    shape = (size, size, c) if channels_last_out else (c, size, size)
    out = common.empty(images, views, b, *shape, dtype=dtype)
    random_views_(
        images, offsets, sizes, parameters, kernel, mean, deviation, channels_last_in,
        channels_last_out, out,
    )  # fmt: skip
    return out


def random_views_(
    images, offsets, sizes, parameters, kernel, mean, deviation, channels_last_in,
    channels_last_out, out,
) -> None:  # fmt: skip
    """`reference.random_views_` in one launch."""
    b, views, _ = parameters.shape
    c, last = channels(images, offsets, channels_last_in), channels_last_in or offsets is not None
    size = out.shape[3]
    processors = torch.cuda.get_device_properties(images.device).multi_processor_count
    programs = min(b * views, processors)
    scratch = common.empty(images, programs, 2, c, size, size)
    columns = min(triton.next_power_of_2(size), WIDEST)
    height, width = (1, 1) if offsets is not None else images.shape[1 if last else 2 :][:2]
    views_kernel[(programs,)](
        images, offsets, sizes, parameters.contiguous(), mean, deviation, scratch, out,
        b * views, views, images.numel(), height, width, size, kernel // 2,
        FULL_SCALE[images.dtype], c, last, channels_last_out,
        BLOCK // columns, BLUR_BLOCK // columns, columns, num_warps=WARPS, num_stages=1,
    )  # fmt: skip
