"""The compiled kernel of random views beside the reference, in every instruction set."""

import threading
import time

import pytest
import torch
import view_cases as cases
from processors import built, running
from test_random_views import LEVEL, TOLERANCE, check, in_reference

import fastcl.functional as F
from benchmarks.memory import growth
from fastcl._processor import INSTRUCTION_SETS

pytestmark = [built, pytest.mark.instruction_sets]

DTYPES = [torch.uint8, torch.uint16, torch.float32]
# Height and width of the image, side of the view, taps of the blur: one pixel, one row, fewer
# pixels than a vector, a pixel below and above one and two of them, enlarged and reduced, more taps
# than 16 bits are for.
SHAPES = [
    (1, 1, 1, 1), (1, 1, 5, 9), (1, 40, 8, 3), (40, 1, 9, 5), (2, 3, 33, 65), (15, 17, 7, 7),
    (31, 33, 32, 23), (33, 31, 31, 1), (64, 65, 63, 21), (65, 64, 65, 23), (90, 120, 64, 11),
    (120, 90, 17, 5), (600, 3, 4, 3), (3, 600, 4, 3), (375, 500, 224, 23),
]  # fmt: skip


def records(h, w, chains, seed=0):
    g = torch.Generator().manual_seed(seed)
    alone = [cases.record(h, w, **chosen) for chosen in cases.OPERATIONS.values()]
    return torch.stack(alone + [cases.drawn(h, w, g) for _ in range(chains)])


def views_of(x, parameters, size, kernel, **options):
    return F.random_views(x[None], parameters[None], size=size, kernel=kernel, **options)[:, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("h, w, size, kernel", SHAPES)
def test_operations_and_chains(h, w, size, kernel, dtype):
    x = cases.image(3, h, w, dtype, seed=h)
    parameters = records(h, w, chains=0 if h * w > 10**5 else 12)
    views, expected = (f(x, parameters, size, kernel) for f in (views_of, in_reference))
    alone = len(cases.OPERATIONS)
    for part, tolerance in zip((slice(alone), slice(alone, None)), TOLERANCE[dtype], strict=True):
        check(views[part], expected[part], tolerance, parameters[part, -1])


@pytest.mark.parametrize("order", range(24))
def test_every_order(order):
    """Factors of which no two operations can change places unnoticed."""
    x = cases.image(3, 20, 21)
    factors = {"brightness": 1.6, "contrast": 0.4, "saturation": 1.8, "hue": 0.23}
    every = torch.stack([cases.record(20, 21, order=k, **factors) for k in range(24)])
    expected = in_reference(x, every, 16, 1)
    parameters, own = every[order : order + 1], expected[order : order + 1]
    check(views_of(x, parameters, 16, 1), own, TOLERANCE[torch.uint8][1], parameters[:, -1])
    apart = (expected - own).abs().flatten(1).amax(1)
    assert apart.sort().values[1] > 2 * TOLERANCE[torch.uint8][1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_crops_at_every_edge(dtype):
    """The image lies between others, which no crop may see."""
    images = torch.stack([cases.image(3, 24, 26, dtype, seed=k) for k in range(3)])
    boxes = [(t, left, h, w) for h, w in ((1, 1), (5, 24), (24, 7), (11, 12))
             for t in (0, 24 - h) for left in (0, 26 - w)]  # fmt: skip
    names = cases.NAMES[:4]
    parameters = torch.stack(
        [cases.record(24, 26, **dict(zip(names, box, strict=True))) for box in boxes]
    )
    views = F.random_views(images, parameters.expand(3, *parameters.shape), size=10, kernel=1)
    for k, x in enumerate(images):
        expected = in_reference(x, parameters, 10, 1)
        check(views[:, k], expected, TOLERANCE[dtype][0], parameters[:, -1])


@pytest.mark.parametrize("c", [1, 2, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_channels(c, dtype):
    x = cases.image(c, 30, 40, dtype)
    chosen = [{}, {"mirror": 1}, {"sigma": 1.2}, {"threshold": 0.4, "sigma": 0.5}]
    parameters = torch.stack([cases.record(30, 40, **one) for one in chosen])
    views = views_of(x, parameters, 17, 9)
    check(views, in_reference(x, parameters, 17, 9), TOLERANCE[dtype][0], parameters[:, -1])


def test_levels_at_the_threshold_are_inverted():
    """Where nothing else happens pixels are as exact as bytes."""
    x = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    for level in (0, 1, 100, 128, 254, 255):
        parameters = cases.record(16, 16, threshold=level / 255)[None]
        level_of = views_of(x, parameters, 16, 1).mul(255).round().view(256).int()
        plain = torch.arange(256, dtype=torch.int32)
        assert torch.equal(level_of, torch.where(plain >= level, 255 - plain, plain))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_level_that_equals_the_threshold_is_inverted(dtype):
    """Whatever the rounding of what a whole number is divided by."""
    levels = torch.arange(256)
    full = {torch.uint8: 255, torch.uint16: 65535, torch.float32: 1}[dtype]
    x = (levels * 257 if dtype == torch.uint16 else levels / (255 if full == 1 else 1)).to(dtype)
    images = x.view(256, 1, 1, 1).expand(256, 1, 3, 3).contiguous()
    parameters = torch.stack([cases.record(3, 3, threshold=k / 255) for k in range(256)])
    found = F.random_views(images, parameters[:, None], size=3, kernel=1).flatten(2)[0]
    expected = (1 - levels / 255)[:, None].expand(256, 9)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 if full > 255 else 0.01 / 255)


# From a few taps to hundreds along either axis, on pixels that are all alike: whatever is rounded
# off a product is rounded off all others too.
@pytest.mark.parametrize(
    ("h", "w", "size"),
    [(44, 33, 11), (92, 50, 23), (231, 259, 5), (374, 382, 32), (477, 480, 48), (559, 558, 28),
     (639, 638, 32), (640, 640, 64), (63, 700, 6), (50, 1125, 26)],
)  # fmt: skip
def test_one_level_stays_that_level(h, w, size):
    levels = torch.arange(256, dtype=torch.uint8)
    x = levels.view(256, 1, 1, 1).expand(256, 1, h, w)
    for name, factor in (("saturation", 1.0), ("brightness", 1.8)):
        channels = 1 if factor == 1 else 3
        parameters = cases.record(h, w, **{name: factor}).expand(256, 1, 13)
        views = F.random_views(x.expand(-1, channels, -1, -1), parameters, size=size, kernel=1)[0]
        expected = (levels * factor).clamp(max=255).view(256, 1, 1, 1)
        assert (255 * views - expected).abs().max() <= (0.1 if factor == 1 else 0.25)


@pytest.mark.parametrize(("h", "w", "size"), [(50, 1125, 26), (338, 1322, 40), (900, 900, 70)])
def test_no_weight_takes_what_the_others_left(h, w, size):
    """Black and white at random."""
    x = cases.image(3, h, w, seed=w)
    x = (x > 127).to(torch.uint8) * 255
    record = cases.record(h, w)[None]
    difference = views_of(x, record, size, 1) - in_reference(x, record, size, 1)
    assert 255 * difference.abs().max() <= 0.05


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_bits_in_every_set(dtype):
    x = cases.image(3, 61, 83, dtype)
    parameters = records(61, 83, chains=20)
    views = views_of(x, parameters, 37, 11)
    with running(INSTRUCTION_SETS[0]):
        assert torch.equal(views_of(x, parameters, 37, 11), views)


@pytest.mark.parametrize("layout", ["chw", "hwc"])
@pytest.mark.parametrize("c", [1, 3, 4])
def test_equal_bits_of_rows_of_any_length(c, layout):
    """Around whole vectors, of one to five taps and more along either axis, where all or half the
    outputs of a vector share two of them; taken to the end of the memory and from within it,
    mirrored too."""
    h = 150
    for w in (1, 5, 31, 32, 33, 64, 65, 95, 96, 97, 160, 290, 500, 900):
        x = cases.image(c, h, w, seed=w)[None]
        x = x if layout == "chw" else x.permute(0, 2, 3, 1).contiguous()
        within = {"width": max(1, w - 3), "left": min(2, w - 1)}
        boxes = [{}, *({**within, "height": rows, "top": h - rows} for rows in (17, 65, 70, 100))]
        parameters = torch.stack(
            [cases.record(h, w, **box, mirror=k) for box in boxes for k in (0, 1)]
        )
        for size in (7, 32, 33, 65):
            given = {"size": size, "kernel": 1, "layout": layout}
            views = F.random_views(x, parameters[None], **given)
            with running(INSTRUCTION_SETS[0]):
                again = F.random_views(x, parameters[None], **given)
            assert torch.equal(views, again)


@pytest.mark.parametrize("kernel", [101, 151, 447])
@pytest.mark.parametrize("sigma", [10, 25, 60])
def test_blurs_far_beyond_the_papers(kernel, sigma):
    """Of bytes, one level stays that level within a tenth of it."""
    parameters = cases.record(1, 1, sigma=sigma)[None]
    for level in (1, 37, 128, 254):
        view = views_of(torch.full((1, 1, 1), level, dtype=torch.uint8), parameters, 224, kernel)
        assert (255 * view - level).abs().max() <= 0.1


def test_factors_far_beyond_the_papers():
    """Chains of the strongest that some 16-bit number could hold."""
    strong = {
        "brightness": 1.82,
        "contrast": 1.71,
        "saturation": 1.9999,
        "hue": -1 / 6,
        "order": 14,
    }
    for seed in range(20):
        x = cases.image(3, 200, 1 + seed, seed=seed)
        parameters = cases.record(200, 1 + seed, **strong)[None]
        expected = in_reference(x, parameters, 31, 1)
        assert 255 * (views_of(x, parameters, 31, 1) - expected).abs().max() <= 0.25


@pytest.mark.parametrize("size", [17, 31, 32, 33, 64, 65, 96, 97, 129, 160])
def test_equal_bits_of_blurs_of_any_reach(size):
    """Within a vector and beyond, of one to five of them; rows are blurred while the colours of
    those below are yet to come."""
    x = cases.image(3, 150, 170)
    flat = {"sigma": 50, "top": 3, "left": 5, "height": 140, "width": 160}
    colours = {"contrast": 1.4, "hue": 0.1, "saturation": 0.5, "order": 20}
    chosen = [flat, {**flat, **colours}, {**flat, **colours, "contrast": 1, "grey": 1}]
    parameters = torch.stack([cases.record(150, 170, **one) for one in chosen])
    for reach in (1, 2, 5, 31, 32, 33, 50, size - 1):
        kernel = 2 * min(reach, size - 1) + 1
        views = views_of(x, parameters, size, kernel)
        with running(INSTRUCTION_SETS[0]):
            assert torch.equal(views_of(x, parameters, size, kernel), views)


@pytest.mark.parametrize("size", [223, 224])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_written_past_the_caches(dtype, size):
    """More than 4 MB are, the views of a call of one are not: the same numbers. Planes of 224 x 224
    end with a vector and begin where one can be written, others do not."""
    x = cases.image(3, 61, 83, torch.uint8)
    parameters = records(61, 83, chains=16)[-16:]
    single = torch.cat([views_of(x, one[None], size, 9, dtype=dtype) for one in parameters])
    for memory in (torch.contiguous_format, torch.channels_last):
        views = views_of(x, parameters, size, 9, dtype=dtype, memory_format=memory)
        assert views.nbytes > 4 << 20 and torch.equal(views, single)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_bits_for_any_number_of_threads(dtype):
    images = [cases.image(3, 20 + 7 * k, 90 - 5 * k, dtype, seed=k) for k in range(9)]
    parameters = torch.stack([records(*x.shape[1:], chains=8, seed=k)[-8:]
                              for k, x in enumerate(images)])  # fmt: skip
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        try:
            results.append(F.random_views(images, parameters, size=48, kernel=9))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(views, results[0]) for views in results[1:])


@pytest.mark.any_set
def test_other_threads_run_meanwhile():
    """Views of a second or so; a thread of Python counts beside it."""
    x = cases.image(3, 375, 500)[None]
    parameters = cases.record(375, 500, sigma=2, saturation=2, hue=0.1).expand(1, 3000, 13)
    done, turns, most = threading.Event(), 0, 0.0

    def call():
        F.random_views(x, parameters, size=96)
        done.set()

    thread = threading.Thread(target=call)
    thread.start()
    last = time.perf_counter()
    while not done.wait(0.001):
        now = time.perf_counter()
        turns, most, last = turns + 1, max(most, now - last), now
    thread.join()
    assert turns > 20 and most < 0.5


@pytest.mark.any_set
def test_memory_does_not_grow_with_the_batch():
    x = cases.image(3, 64, 64)[None]
    parameters = cases.record(64, 64, sigma=1, hue=0.1)

    def extra(b):
        """Bytes above the output."""
        arguments = x.expand(b, 3, 64, 64).contiguous(), parameters.expand(b, 2, 13).contiguous()
        output = 2 * b * 3 * 32 * 32 * 4
        return growth(lambda: F.random_views(*arguments, size=32)) - output

    extra(8)
    assert extra(4000) < 4e6  # the output has 98 MB


def test_the_checks_notice_a_fifth_of_a_level():
    """The control of the checks above."""
    x, parameters = cases.image(3, 20, 21), cases.record(20, 21)[None]
    views = views_of(x, parameters, 16, 1)
    with pytest.raises(AssertionError):
        check(views + 0.2 * LEVEL, in_reference(x, parameters, 16, 1), 0.1 * LEVEL,
              parameters[:, -1])  # fmt: skip
