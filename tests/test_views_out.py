"""Memory given for the views: written and returned, or an error before anything is written."""

import io

import pytest
import torch
import view_cases as cases

import fastcl.functional as F
from fastcl import views
from fastcl._library import ops
from fastcl.functional.packed import pack

IMAGES = torch.stack([cases.image(3, 30, 40, seed=k) for k in range(3)])
FORMATS = [torch.contiguous_format, torch.channels_last]
MODULES = {
    "two views": views.SimCLR(12),
    "of 16 bits": views.BYOL(12, dtype=torch.bfloat16, memory_format=torch.channels_last),
    "of two sizes": views.DINO(24, 9, 3),
    "one view": views.Supervised(8),
}


def written(x):
    """A file of an image."""
    buffer = io.BytesIO()
    pixels = x.permute(1, 2, 0).numpy()
    pytest.importorskip("PIL.Image").fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def seeded():
    return torch.Generator().manual_seed(3)


def listed(made):
    return made if isinstance(made, list) else [made]


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["batch", "hwc", "packed"])
def test_views_are_written_to_memory(form, dtype, memory_format):
    parameters = views.draw(views.SimCLR.RECIPES, (3, 30, 40), generator=seeded())
    images = {
        "batch": IMAGES, "hwc": IMAGES.permute(0, 2, 3, 1).contiguous(),
        "packed": pack(list(IMAGES)),
    }[form]  # fmt: skip
    options = {"size": 9, "kernel": 3, "dtype": dtype, "memory_format": memory_format}
    options["layout"] = "hwc" if form == "hwc" else "chw"
    expected = F.random_views(images, parameters, **options)
    memory = torch.full_like(expected, torch.nan)
    found = F.random_views(images, parameters, **options, out=memory)
    assert found is memory and torch.equal(memory, expected)


@pytest.mark.parametrize("images", [IMAGES, list(IMAGES)], ids=["batch", "list"])
@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_modules_write_to_what_they_returned(module, images):
    memory, expected = module(images), module(images, seeded())
    found = module(images, seeded(), out=memory)
    for ours, theirs, given in zip(*map(listed, (found, expected, memory)), strict=True):
        assert ours.data_ptr() == given.data_ptr() and ours.stride() == given.stride()
        assert torch.equal(ours, theirs)


ROOM = torch.zeros(9000)
SHARED = ROOM.view(torch.uint8)[: IMAGES.numel()].view(IMAGES.shape)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (3, TypeError, "out must be a tensor, got int"),
        (torch.empty(2, 3, 3, 8, 8).half(), TypeError, "out must be torch.float32, got .*float16"),
        (torch.empty(2, 3, 3, 8, 8, device="meta"), ValueError, "out must be on cpu, got .* meta"),
        (torch.empty(2, 3, 3, 9, 8), ValueError, r"shape \[2, 3, 3, 8, 8\], got \[2, 3, 3, 9, 8\]"),
        (torch.empty(2, 3, 3, 64), ValueError, "out must have shape"),
        (torch.empty(2, 3, 3, 8, 9)[..., :8], ValueError, "contiguous and end to end, got strides"),
        (torch.empty(2, 3, 8, 8, 3).permute(0, 1, 4, 2, 3), ValueError, "out must be contiguous"),
        (ROOM[: 2 * 3 * 3 * 64].view(2, 3, 3, 8, 8), ValueError, "in the memory of images"),
        (torch.empty(2, 3, 3, 8, 8).requires_grad_(), ValueError, "must not require a gradient"),
    ],
)
def test_bad_memory_is_named(out, error, message):
    before = ROOM.clone()
    with pytest.raises(error, match=message):
        views.SimCLR(8)(SHARED, out=out)
    parameters = views.draw(views.SimCLR.RECIPES, (3, 30, 40), generator=seeded())
    with pytest.raises(error, match=message):
        F.random_views(SHARED, parameters, size=8, kernel=1, out=out)
    assert torch.equal(ROOM, before)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("way", ["module", "function", "files"])
def test_a_backward_that_needs_the_earlier_views_fails(way, memory_format):
    module = views.SimCLR(8, memory_format=memory_format)
    files = [written(x) for x in IMAGES] if way == "files" else []
    parameters = views.draw(module.recipes, (3, 30, 40), generator=seeded())
    form = {"size": 8, "kernel": 1, "memory_format": memory_format}

    def made(**given):
        if way == "module":
            return module(IMAGES, **given)
        if way == "files":
            return module.load(files, **given)
        return F.random_views(IMAGES, parameters, **form, **given)

    weight = torch.ones(3, 1, 1, requires_grad=True)
    earlier = made()
    loss = (weight * earlier).sum()
    made(out=earlier)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_backward_that_needs_the_earlier_views_fails(backend):
    """Where the views are written again in the same graph, too, as it is traced."""
    module, weight = views.SimCLR(8), torch.ones(3, 1, 1, requires_grad=True)

    def step(images, out):
        first = (weight * module(images, out=out)).sum()
        return first + (weight * module(images, out=out)).sum()

    compiled = torch.compile(step, backend=backend, fullgraph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        compiled(IMAGES, torch.empty(2, 3, 3, 8, 8)).backward()


def test_memory_of_inference_is_written():
    with torch.inference_mode():
        module = views.SimCLR(8)
        memory = module(IMAGES)
        assert torch.equal(module(IMAGES, seeded(), out=memory), module(IMAGES, seeded()))
    expected = module(IMAGES, seeded())
    assert torch.equal(module(IMAGES, seeded(), out=memory), expected)


def test_memory_of_channels_last_views_is_that():
    out = torch.empty(2, 3, 3, 8, 8)
    with pytest.raises(ValueError, match="out must be channels last within each view"):
        views.SimCLR(8, memory_format=torch.channels_last)(IMAGES, out=out)


def test_memory_is_not_that_of_the_parameters():
    parameters = views.draw(views.SimCLR.RECIPES, (3, 30, 40), generator=seeded())
    room = torch.zeros(2 * 3 * 3 * 64 + parameters.numel())
    mine = room[-parameters.numel() - 9 : -9].view(parameters.shape).copy_(parameters)
    with pytest.raises(ValueError, match="out must not lie in the memory of parameters"):
        F.random_views(
            IMAGES, mine, size=8, kernel=1, out=room[: 2 * 3 * 3 * 64].view(2, 3, 3, 8, 8)
        )
    beside = room[-parameters.numel() :].view(parameters.shape).copy_(parameters)
    out = room[: 2 * 3 * 3 * 64].view(2, 3, 3, 8, 8)
    expected = F.random_views(IMAGES, parameters, size=8, kernel=1)
    assert torch.equal(F.random_views(IMAGES, beside, size=8, kernel=1, out=out), expected)


def test_nothing_is_written_where_one_of_two_is_wrong():
    module = views.DINO(24, 9, 3)
    large, small = module(IMAGES)
    kept = large.clone()
    for out, error, message in (
        ([large, small[:2]], ValueError, r"out must have shape \[3, 3, 3, 9, 9\]"),
        ([large, small.double()], TypeError, "out must be torch.float32"),
        ([large], ValueError, "out must hold 2 tensors, got 1"),
        (large, ValueError, "out must hold 2 tensors, got 1"),
    ):
        with pytest.raises(error, match=message):
            module(IMAGES, out=out)
    assert torch.equal(large, kept)


def test_memory_between_the_pixels_of_images_is_theirs():
    """Those of every fourth column go on behind as many bytes as they have; images that are one
    and the same do not."""
    module, room = views.DINO(24, 9, 3), torch.zeros(1 << 20, dtype=torch.uint8)
    strided = room[: 3 * 3 * 64 * 256].view(3, 3, 64, 256)[..., ::4]
    large, small = module(strided.clone())
    end = (3 * 3 * 64 * 256 - large.nbytes) // 64 * 64
    inside = room[end : end + large.nbytes].view(torch.float32).view(large.shape)
    with pytest.raises(ValueError, match="out must not lie in the memory of images"):
        module(strided, out=[inside, small])
    one = room[: 3 * 4096].view(1, 3, 64, 64).expand(32, 3, 64, 64)
    behind = room[1 << 15 : (1 << 15) + 49152].view(torch.float32).view(2, 32, 3, 8, 8)
    assert views.SimCLR(8)(one, out=behind) is behind


@pytest.mark.parametrize("last", [False, True])
def test_groups_do_not_share_memory(last, tmp_path):
    form = torch.channels_last if last else torch.contiguous_format
    module = views.DINO(24, 9, 3, memory_format=form)
    large, small = module(IMAGES)
    room = torch.zeros(large.numel() + small.numel())

    def part(start, x):
        shape = (*x.shape[:2], *x.shape[3:], x.shape[2]) if last else x.shape
        memory = room[start : start + x.numel()].view(shape)
        return memory.permute(0, 1, 4, 2, 3) if last else memory

    pytest.importorskip("PIL.Image").new("RGB", (40, 30)).save(tmp_path / "one.png")
    for call in (module, lambda _, out: module.load([tmp_path / "one.png"] * 3, out=out)):
        with pytest.raises(ValueError, match=r"out must not lie in the memory of out\[0\]"):
            call(IMAGES, out=[part(0, large), part(large.numel() - 1, small)])
        assert not room.any()
    given = torch.Generator()
    out = [part(0, large), part(large.numel(), small)]
    found = module(IMAGES, given.manual_seed(1), out=out)
    for ours, theirs in zip(found, module(IMAGES, given.manual_seed(1)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("last", [False, True])
def test_operator_and_compilation(last):
    parameters = views.draw(views.SimCLR.RECIPES, (3, 30, 40), generator=seeded())
    out = torch.zeros((2, 3, 8, 8, 3) if last else (2, 3, 3, 8, 8))
    torch.library.opcheck(
        ops.random_views_,
        (IMAGES, None, None, parameters, 1, torch.zeros(3), torch.ones(3), False, last, out),
    )
    if not last:
        compiled = torch.compile(F.random_views, fullgraph=True, backend="aot_eager")
        compiled(IMAGES, parameters, size=8, kernel=1, out=out)
        assert torch.equal(out, F.random_views(IMAGES, parameters, size=8, kernel=1))
