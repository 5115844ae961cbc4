"""Wrong arguments and images of fastcl.views: an error that names them."""

import pytest
import torch
from view_cases import images

from fastcl import views

PACKED = views.pack(list(images()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: views.SimCLR(0), ValueError, "size must be 1 or more, got 0"),
        (lambda: views.Views(8), ValueError, "recipes must hold one recipe"),
        (lambda: views.SwAV(8, 4, 0), ValueError, "crops must be 1 or more, got 0"),
        (lambda: views.SimCLR(8, strength=-1.0), ValueError, "strength must be 0 or more, got -1"),
        (lambda: views.SimCLR(8, strength=3), ValueError, "strength must not be 3: hue must be"),
        (lambda: views.SimCLR(8, [1]), TypeError, r"recipes\[0\] must be a Recipe, got int"),
        (lambda: views.Views(8, views.Recipe()), TypeError, "recipes must be a sequence of Recipe"),
        (lambda: views.SimCLR(8, mean="a"), TypeError, "mean must be numbers, one for each"),
        (lambda: views.SimCLR(8, mean=[torch.nan] * 3)(images()), ValueError, "mean must be fini"),
        (lambda: views.SimCLR(8, mean=[1e39] * 3)(images()), ValueError, "mean must be finite"),
        (
            lambda: views.SimCLR(8, deviation=[1e-40] * 3)(images()),
            ValueError,
            "deviation must be 1.18e-38 or more",
        ),
        (
            lambda: views.SimCLR(8)(PACKED._replace(sizes=PACKED.sizes.to("meta"))),
            ValueError,
            "sizes must be on the device of pixels, cpu, got meta",
        ),
        (lambda: views.draw(views.Recipe(), (1, 2, 3)), TypeError, "recipes must be a sequence"),
        (lambda: views.draw([views.Recipe()], 5), TypeError, "sizes must be a tensor"),
        (lambda: views.draw([views.Recipe()], (1, 2)), TypeError, "sizes must be a tensor"),
        (
            lambda: views.draw([views.Recipe()], (1, 2, 3), chances=5),
            TypeError,
            "chances must be a tensor, got int",
        ),
        (
            lambda: views.draw([views.Recipe()], (1, 2, 3), chances=torch.zeros(1, 33, 1).double()),
            TypeError,
            "chances must be float32, got torch.float64",
        ),
        (lambda: views.SimCLR(2**15 + 1), ValueError, "size must be from 1 to 32768, got 32769"),
        (lambda: views.SwAV(8, 2**16), ValueError, "small must be from 1 to 32768, got 65536"),
        (lambda: views.SimCLR(8, memory_format=3), ValueError, "memory_format must be one of"),
        (lambda: views.SimCLR(8, dtype=torch.int8), ValueError, "dtype must be one of"),
        (lambda: views.SimCLR(8)(images(), 3), TypeError, "generator must be a torch.Generator"),
        (lambda: views.SimCLR(8)(images()[:0]), ValueError, "images must have pixels"),
        (lambda: views.SimCLR(8)(views.Packed(None, *PACKED[1:])), TypeError, "pixels must be a t"),
        (
            lambda: views.SimCLR(8)(views.Packed(PACKED[0], PACKED[1][:0], PACKED[2][:0])),
            ValueError,
            "offsets must have one image at least",
        ),
        # Channels last that are taken for channels first, as so many as no memory would hold.
        (
            lambda: views.SimCLR(224)(images(1, 224, 224, 3).expand(4096, -1, -1, -1)),
            ValueError,
            r"mean must have shape \[224\], got \[3\]",
        ),
        (lambda: views.Digits(0), ValueError, "views must be 1 or more, got 0"),
        (lambda: views.Digits(scale=0), ValueError, "scale must be 1 or more, got 0"),
        (lambda: views.Digits(noise=-1), ValueError, "noise must be 0 or more, got -1"),
        (lambda: views.Digits(degrees=torch.nan), ValueError, "degrees must be finite, got nan"),
        (lambda: views.Digits(brightness=9.0), ValueError, "brightness must be from 0 to 1"),
        (lambda: views.SimCLR(8)(3), TypeError, "images must be a tensor, got int"),
        (lambda: views.SimCLR(8)([]), ValueError, "images must hold one image"),
        (lambda: views.SimCLR(8)(images()[0]), ValueError, "images must have 4 dimensions"),
        (lambda: views.SimCLR(8, layout="whc")(images()), ValueError, "layout must be one of"),
        (lambda: views.Digits()(images()[0]), ValueError, "images must have 4 dimensions"),
        (lambda: views.Digits()(images().float()), TypeError, "images must be uint8"),
        (lambda: views.Digits()([]), ValueError, "images must hold one image at least"),
        (lambda: views.Digits()([1]), TypeError, r"images\[0\] must be a tensor, got int"),
        (lambda: views.Digits()(images()[:0]), ValueError, "images must have pixels"),
        (
            lambda: views.Digits()([*images(1, h=8, w=8), *images(1, h=8, w=9)]),
            ValueError,
            r"images\[1\] must have the shape of images\[0\]",
        ),
        (lambda: views.Digits()(images(), generator=5), TypeError, "generator must be a torch.Gen"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
