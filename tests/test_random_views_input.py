"""Random views: what they accept in which form, and what bad input gets."""

import pytest
import torch
import view_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcl.functional as F
from fastcl._library import ops
from fastcl.functional.packed import Packed, pack

IMAGES = torch.stack([cases.image(3, 8, 9, seed=k) for k in range(2)])
PARAMETERS = torch.stack([cases.record(8, 9, mirror=k % 2) for k in range(3)]).expand(2, 3, 13)
FITTING = {"images": IMAGES, "parameters": PARAMETERS, "size": 6, "kernel": 3}
PACKED = pack(list(IMAGES))


def parameters(**chosen):
    return torch.stack([cases.record(8, 9), cases.record(8, 9, **chosen)])[None].expand(2, 2, 13)


def test_shapes_and_normalisation():
    views = F.random_views(**FITTING, mean=cases.MEAN, deviation=cases.DEVIATION)
    assert views.shape == (3, 2, 3, 6, 6) and views.dtype == torch.float32
    plain = F.random_views(**FITTING)
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in (cases.MEAN, cases.DEVIATION))
    torch.testing.assert_close(views, (plain - mean) / deviation)
    # Mirrored weights are rounded from the other end: the bound of a chain of bytes.
    torch.testing.assert_close(plain[0].flip(-1), plain[1], atol=0.25 / 255, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
@pytest.mark.parametrize("c", [1, 2, 3, 5])
def test_every_form_of_images_is_the_same(c, dtype):
    images = torch.stack([cases.image(c, 8, 9, dtype, seed=k) for k in range(2)])
    arguments = {**FITTING, "images": images}
    views = F.random_views(**arguments)
    last = images.permute(0, 2, 3, 1).contiguous()
    for form in (
        {"images": last, "layout": "hwc"},
        {"images": last.permute(0, 3, 1, 2)},
        {"images": list(images)},
        {"images": tuple(last.permute(0, 3, 1, 2))},
        {"images": pack(list(images))},
    ):
        assert torch.equal(F.random_views(**{**arguments, **form}), views)
    turned = F.random_views(**arguments, memory_format=torch.channels_last)
    assert torch.equal(turned, views)
    assert turned[0].is_contiguous(memory_format=torch.channels_last)


def test_an_exported_program_takes_other_strides_than_its_example():
    class Views(torch.nn.Module):
        def forward(self, images, parameters):
            return F.random_views(images, parameters, size=6, kernel=3)

    images, parameters = FITTING["images"], FITTING["parameters"]
    last = images.contiguous(memory_format=torch.channels_last)
    expected = F.random_views(images, parameters, size=6, kernel=3)
    strided = torch.cat([images, images], 3)[..., : images.shape[3]]
    for example in (last, images):
        program = torch.export.export(Views(), (example, parameters)).module()
        for form in (last, images, strided):
            assert torch.equal(program(form, parameters), expected)


def test_memory_of_images_that_are_copied_is_theirs():
    room = torch.zeros(2400)
    images, out = room.view(2, 3, 20, 20).transpose(2, 3), room[:768].view(2, 2, 3, 8, 8)
    parameters = cases.record(20, 20).expand(2, 2, 13)
    with pytest.raises(ValueError, match="out must not lie in the memory of images"):
        F.random_views(images, parameters, size=8, kernel=1, out=out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_views_are_rounded_once(dtype):
    views = F.random_views(**FITTING, mean=cases.MEAN, deviation=cases.DEVIATION)
    rounded = F.random_views(**FITTING, mean=cases.MEAN, deviation=cases.DEVIATION, dtype=dtype)
    assert torch.equal(rounded, views.to(dtype))


def test_images_of_any_sizes():
    images = [cases.image(3, h, w, seed=h) for h, w in ((8, 9), (1, 1), (20, 3))]
    records = torch.stack([cases.record(*x.shape[1:]) for x in images])[:, None]
    views = F.random_views(images, records, size=5, kernel=3)
    for i, x in enumerate(images):
        alone = F.random_views(x[None], records[i : i + 1], size=5, kernel=3)
        assert torch.equal(views[:, i], alone[:, 0])
    pixels, offsets, sizes = pack(images)  # in another order, with a gap
    moved = torch.cat([pixels.new_zeros(2, 3), pixels])
    other = Packed(moved, (offsets + 6).flip(0), sizes.flip(0))
    assert torch.equal(F.random_views(other, records.flip(0), size=5, kernel=3), views.flip(1))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"images": IMAGES[0]}, ValueError, r"images must have 4 dimensions.*\[3, 8, 9\]"),
        ({"images": IMAGES[:, :, :0]}, ValueError, "images must have pixels"),
        ({"images": IMAGES[:0]}, ValueError, "images must have pixels"),
        ({"images": IMAGES.long()}, TypeError, "images must be uint8, uint16 or float32.*int64"),
        ({"images": "two"}, TypeError, "images"),
        ({"images": None}, TypeError, "images must be a tensor"),
        ({"images": []}, ValueError, "one image at least"),
        ({"images": [IMAGES[0], IMAGES[1, :, :0]]}, ValueError, r"images\[1\].*none of them 0"),
        ({"images": [IMAGES[0], IMAGES[1, :2]]}, ValueError, r"images\[1\] must have 3 channels"),
        ({"images": [IMAGES[0], IMAGES[1].float()]}, TypeError, r"images\[1\] must have the dtype"),
        ({"images": [IMAGES[0].long()]}, TypeError, "images must be uint8"),
        ({"images": PACKED._replace(pixels=PACKED.pixels.flatten())}, ValueError, "2 dimensions"),
        ({"images": PACKED._replace(offsets=PACKED.offsets + 1)}, ValueError, r"offsets\[1\].*217"),
        ({"images": PACKED._replace(offsets=-PACKED.offsets)}, ValueError, r"offsets\[1\].*-216"),
        ({"images": PACKED._replace(offsets=PACKED.offsets.int())}, TypeError, "offsets.*int64"),
        ({"images": PACKED._replace(offsets=PACKED.offsets[:1])}, ValueError, "sizes must have"),
        ({"images": PACKED._replace(sizes=PACKED.sizes * 0)}, ValueError, "sizes must be 1"),
        ({"images": PACKED._replace(sizes=PACKED.sizes * 99)}, ValueError, "sizes must fit"),
        ({"images": PACKED._replace(sizes=PACKED.sizes + 2**62)}, ValueError, "sizes must fit"),
        ({"parameters": PARAMETERS.double()}, TypeError, "parameters must be float32"),
        ({"parameters": PARAMETERS[:1]}, ValueError, r"parameters must have shape \[2, V, 13\]"),
        ({"parameters": PARAMETERS[:, :0]}, ValueError, "one view at least"),
        ({"parameters": PARAMETERS[..., :12]}, ValueError, r"parameters must have shape"),
        ({"parameters": parameters(top=1)}, ValueError, r"\[0, 1\].*height is 8.*top 1 and height"),
        ({"parameters": parameters(left=1)}, ValueError, "width is 9, got left 1 and width 9"),
        ({"parameters": parameters(left=-1)}, ValueError, r"\[0, 1, 1\], left, .*from 0, got -1"),
        ({"parameters": parameters(height=0)}, ValueError, "height, must be a whole number from 1"),
        ({"parameters": parameters(width=1.5)}, ValueError, "width, must be a whole number.*1.5"),
        ({"parameters": parameters(mirror=0.5)}, ValueError, "mirror, must be a whole.*0 to 1"),
        ({"parameters": parameters(brightness=-1)}, ValueError, "brightness, must be .*from 0"),
        ({"parameters": parameters(contrast=torch.inf)}, ValueError, "contrast, must be finite"),
        ({"parameters": parameters(saturation=torch.nan)}, ValueError, "saturation.*nan"),
        ({"parameters": parameters(saturation=-0.5)}, ValueError, "saturation, must be .*from 0"),
        ({"parameters": parameters(contrast=-0.5)}, ValueError, "contrast, must be .*from 0"),
        ({"parameters": parameters(hue=0.6)}, ValueError, "hue, must be from -0.5 to 0.5, got 0.6"),
        ({"parameters": parameters(order=24)}, ValueError, "order, must be .*0 to 23, got 24"),
        ({"parameters": parameters(grey=2)}, ValueError, "grey, must be .*0 to 1, got 2"),
        ({"parameters": parameters(sigma=-0.1)}, ValueError, "sigma, must be .*from 0, got -0.1"),
        ({"parameters": parameters(threshold=torch.nan)}, ValueError, "threshold.*got nan"),
        ({"size": 0}, ValueError, "size must be 1 or more, got 0"),
        ({"size": 6.0}, TypeError, "size must be an integer"),
        ({"kernel": 4}, ValueError, "kernel must be odd, got 4"),
        ({"kernel": 13}, ValueError, "kernel must be below 12 for views of size 6.*got 13"),
        ({"mean": (0.5, 0.5)}, ValueError, r"mean must have shape \[3\], got \[2\]"),
        ({"mean": (0.5, 0.5, torch.nan)}, ValueError, "mean must be finite"),
        ({"deviation": (0.5, 0.5, 0)}, ValueError, "deviation must be finite and above 0"),
        ({"deviation": torch.ones(3).long()}, TypeError, "deviation must be floating point"),
        ({"dtype": torch.float64}, ValueError, "dtype must be one of .*float64"),
        ({"memory_format": torch.preserve_format}, ValueError, "memory_format must be one of"),
        ({"layout": "nchw"}, ValueError, "layout must be one of chw, hwc, got 'nchw'"),
    ],
)
def test_bad_input(wrong, error, message):
    with pytest.raises(error, match=message):
        F.random_views(**{**FITTING, **wrong})


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 12),
    st.floats(width=32) | st.sampled_from([-1.0, -0.0, 0.5, 1.0, 7.0, 8.0, 9.0, 10.0, 23.0, 24.0]),
    st.sampled_from([1, 3]),
)
def test_whatever_the_operator_refuses_is_named(at, value, c):
    wrong = torch.stack([cases.record(8, 9)] * 2)[None].repeat(2, 1, 1)
    wrong[1, 0, at] = value
    arguments = {**FITTING, "images": IMAGES[:, :c], "parameters": wrong}
    out = torch.full((2, 2, c, 6, 6), 7.0)
    try:
        F.random_views(**arguments, out=out)
    except ValueError as error:
        assert "parameters[1, 0" in str(error) and error.__context__ is None
        assert (out == 7).all()
    else:
        assert (out != 7).all()


@pytest.mark.parametrize("c", [1, 4, 5])
@pytest.mark.parametrize("wrong", [0.0, -1.0, torch.nan, torch.inf])
def test_every_deviation_is_looked_at(c, wrong):
    images = cases.image(c, 8, 9)[None].expand(2, c, 8, 9)
    for at in range(c):
        deviation = torch.ones(c)
        deviation[at] = wrong
        with pytest.raises(ValueError, match="deviation must be finite and above 0"):
            F.random_views(**{**FITTING, "images": images}, deviation=deviation)


@pytest.mark.parametrize("c", [1, 2, 4])
@pytest.mark.parametrize(
    "chosen",
    [{"brightness": 0.5}, {"contrast": 2}, {"saturation": 0}, {"hue": 0.1}, {"grey": 1}],
    ids=str,
)
def test_colours_need_three_channels(c, chosen):
    images = cases.image(c, 8, 9)[None].expand(2, c, 8, 9)
    with pytest.raises(ValueError, match=f"{next(iter(chosen))}.*{c} channels: colours need 3"):
        F.random_views(**{**FITTING, "images": images, "parameters": parameters(**chosen)})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_operator_and_compilation(packed, last):
    images, offsets, sizes = PACKED if packed else (IMAGES, None, None)
    images = images.permute(0, 2, 3, 1).contiguous() if last and not packed else images
    torch.library.opcheck(
        ops.random_views,
        (images, offsets, sizes, PARAMETERS.contiguous(), 6, 3, torch.zeros(3), torch.ones(3),
         torch.bfloat16, last and not packed, last),
    )  # fmt: skip
    compiled = torch.compile(F.random_views, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(**FITTING), F.random_views(**FITTING))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
def test_views_of_one_image_have_their_place_in_a_batch(last, dtype):
    normal = torch.tensor(cases.MEAN), torch.tensor(cases.DEVIATION)
    expected = ops.random_views(
        IMAGES, None, None, PARAMETERS.contiguous(), 6, 3, *normal, dtype, False, last
    )
    out = torch.full_like(expected, torch.nan)
    image = IMAGES[1].permute(1, 2, 0).contiguous()
    ops.image_views_(image, PARAMETERS.contiguous(), 1, 3, *normal, last, out, 1)
    assert torch.equal(out[:, 1], expected[:, 1]) and out[:, 0].isnan().all()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [1, 6])
def test_the_stride_of_a_dimension_of_one_says_nothing(size, last):
    image, parameters = IMAGES[1].permute(1, 2, 0).contiguous(), PARAMETERS.contiguous()
    normal, views = (torch.zeros(3), torch.ones(3)), parameters.shape[1]
    shape = (views, 1, size, size, 3) if last else (views, 1, 3, size, size)
    plain = torch.zeros(shape)
    ops.image_views_(image, parameters, 1, 1, *normal, last, plain, 0)
    for step in (0, 7):
        out = torch.zeros(shape)
        odd = [step if n == 1 else s for n, s in zip(shape, out.stride(), strict=True)]
        ops.image_views_(image, parameters, 1, 1, *normal, last, out.as_strided(shape, odd), 0)
        assert torch.equal(out, plain) and out.any()


@pytest.mark.parametrize("steps", [(192, 192), (200, 192), (192, 300), (64, 500)])
def test_no_two_views_of_one_image_lie_in_one_place(steps):
    image, parameters = IMAGES[1].permute(1, 2, 0).contiguous(), PARAMETERS.contiguous()
    views, room = parameters.shape[1], torch.zeros(9000)
    out = room.as_strided((views, 3, 3, 8, 8), (*steps, 64, 8, 1))
    with pytest.raises(RuntimeError, match="no two in one place"):
        ops.image_views_(image, parameters, 1, 1, torch.zeros(3), torch.ones(3), False, out, 1)
    assert not room.any()


def test_opcheck_of_one_image():
    image = IMAGES[1].permute(1, 2, 0).contiguous()
    out = torch.zeros(PARAMETERS.shape[1], 3, 6, 6, 3)
    normal = torch.zeros(3), torch.ones(3)
    torch.library.opcheck(
        ops.image_views_, (image, PARAMETERS.contiguous(), 1, 3, *normal, True, out, 1)
    )


def test_images_with_others_between_them_are_not_end_to_end():
    rows = torch.randint(0, 256, (4, 5, 6, 3), dtype=torch.uint8)
    some = [rows[i].permute(2, 0, 1) for i in (0, 2, 3)]
    pixels, offsets, _ = pack(some)
    assert torch.equal(pixels.view(3, 5, 6, 3), rows[[0, 2, 3]]) and offsets.tolist() == [
        0,
        90,
        180,
    ]


@pytest.mark.parametrize("count", [1, 3 << 20])
def test_large_pages_change_no_number(count):
    x = torch.arange(count, dtype=torch.float32)
    ops.large_pages_(x)
    assert torch.equal(x, torch.arange(count, dtype=torch.float32))
    ops.large_pages_(x := torch.empty(count))
    assert torch.equal(x.fill_(1), torch.ones(count))
