"""fastcl.compat.lightly's transforms: by themselves, and beside the installed library's."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from peers import peer

from fastcl.compat import lightly

pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

NAMES = [
    name for name in lightly.__all__
    if name.endswith("Transform") and name != "MultiViewTransform"
]  # fmt: skip
VIEWS = [name for name in NAMES if "View" in name]
# Arguments other than the defaults, for whoever has them.
CHANGED = {
    "input_size": 32, "cj_prob": 0.7, "cj_strength": 0.9, "cj_bright": 0.3, "cj_contrast": 0.35,
    "cj_sat": 0.25, "cj_hue": 0.15, "min_scale": 0.3, "random_gray_scale": 0.1,
    "solarization_prob": 0.3, "sigmas": (0.2, 1.5), "hf_prob": 0.4, "crop_sizes": (48, 24),
    "crop_counts": (1, 3), "crop_min_scales": (0.4, 0.1), "crop_max_scales": (0.9, 0.3),
    "gaussian_blur_probs": (0.7, 0.2), "gaussian_blur_sigmas": (0.3, 1.2),
    "solarize_probs": (0.1, 0.5), "crop_size": 40, "crop_scale": (0.3, 0.8),
    "crop_min_scale": 0.3, "crop_max_scale": 0.9, "gaussian_blur_prob": 0.4,
    "solarize_prob": 0.6, "global_crop_size": 40, "global_crop_scale": (0.5, 0.9),
    "local_crop_size": 20, "local_crop_scale": (0.1, 0.3), "n_local_views": 3, "num_views": 3,
    "k": 3, "normalize": None,
}  # fmt: skip


def photograph(side=64):
    rows, columns = np.mgrid[:side, :side] / (side - 1)
    channels = (rows * columns, 0.5 + 0.5 * np.sin(9 * rows), (1 - columns) ** 2)
    return Image.fromarray((255 * np.stack(channels, 2)).round().astype(np.uint8))


def changed(name):
    """Arguments of a transform that are not its defaults."""
    known = inspect.signature(getattr(lightly, name)).parameters
    arguments = {key: value for key, value in CHANGED.items() if key in known}
    if "gaussian_blur" in known:
        arguments["gaussian_blur"] = (0.9, 0.3, 0.2) if name == "DINOTransform" else 0.6
    return arguments


def theirs(name):
    pytest.importorskip("torchvision")
    return getattr(peer("lightly.transforms"), name)


def of_library(view):
    """Side, crop, and the numbers of a recipe, read off a composed transform of the library."""
    found = {}
    view = view if hasattr(view, "transforms") else view.transform
    for step in view.transforms:
        kind = type(step).__name__
        if kind == "RandomResizedCrop":
            found |= {
                "size": list(step.size),
                "scale": tuple(step.scale),
                "ratio": tuple(step.ratio),
            }
        elif kind == "RandomHorizontalFlip":
            found["mirror"] = step.p
        elif kind == "RandomApply" and type(step.transforms[0]).__name__ == "ColorJitter":
            jitter = step.transforms[0]
            ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
            found |= {"jitter": step.p, "colours": [tuple(x) for x in ranges]}
        elif kind == "RandomGrayscale":
            found["grey"] = step.p
        elif kind == "GaussianBlur":
            found |= {"blur": step.prob, "sigma": tuple(step.sigmas)}
        elif kind == "RandomSolarization":
            found |= {"solarise": step.prob, "threshold": step.threshold / 255}
        elif kind == "Normalize":
            found["normalize"] = (tuple(step.mean), tuple(step.std))
        elif kind == "SwaVViewTransform":
            found |= of_library(step)
    return found


def of_ours(view):
    r = view.recipe
    lights = (r.brightness, r.contrast, r.saturation)
    found = {
        "size": [view.side()] * 2, "scale": r.scale, "ratio": r.ratio, "mirror": r.mirror,
        "jitter": r.jitter, "grey": r.grey, "blur": r.blur, "sigma": r.sigma,
        "colours": [(max(0, 1 - x), 1 + x) for x in lights] + [(-r.hue, r.hue)],
        "solarise": r.solarise, "threshold": r.threshold,
    }  # fmt: skip
    if view.normalize:
        found["normalize"] = (tuple(view.normalize["mean"]), tuple(view.normalize["std"]))
    return found


def views_of(transform):
    return getattr(transform, "transforms", [transform])


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_the_library_s(name):
    ours, library = (inspect.signature(c) for c in (getattr(lightly, name), theirs(name)))
    assert list(ours.parameters) == list(library.parameters)
    made, original = getattr(lightly, name)(), library.parameters
    for key, parameter in original.items():
        value = getattr(made, key, None)
        assert value == parameter.default or key.startswith("view_")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", ["defaults", "changed"])
def test_numbers_are_the_library_s(name, arguments):
    chosen = changed(name) if arguments == "changed" else {}
    ours, library = getattr(lightly, name)(**chosen), theirs(name)(**chosen)
    ours, library = views_of(ours), views_of(library)
    if isinstance(library, torch.nn.ModuleList):
        library = list(library)
    assert len(ours) == len(library)
    for view, original in zip(ours, library, strict=True):
        expected, found = of_library(original), of_ours(view)
        if "solarise" not in expected:
            assert found.pop("solarise") == 0 and found.pop("threshold")
        assert found.keys() == expected.keys()
        assert found == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"hf_prob": 1.0},
        {"random_gray_scale": 1.0},
        {"solarization_prob": 1.0, "normalize": None},
        {"gaussian_blur": 1.0, "sigmas": (1.5, 1.5)},
    ],
)
def test_views_without_chance_are_the_library_s(arguments):
    still = {
        "input_size": 40, "min_scale": 1.0, "cj_prob": 0.0, "random_gray_scale": 0.0,
        "gaussian_blur": 0.0, "hf_prob": 0.0, "normalize": None,
    }  # fmt: skip
    options = {**still, **arguments}
    ours, library = (
        c(**options) for c in (lightly.BYOLView1Transform, theirs("BYOLView1Transform"))
    )
    x = photograph()
    difference = 255 * (ours(x) - library(x)).abs()
    if "gaussian_blur" in arguments:
        # Where Pillow repeats the outermost pixels, torchvision and fastcl reflect.
        difference = difference[:, 6:-6, 6:-6]
    # Pillow rounds every step to grey levels, and at the threshold of solarising a level decides.
    part = 0.99 if "solarization_prob" in arguments else 1.0
    assert (difference <= 1.6).double().mean() >= part


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back(name):
    transform = getattr(lightly, name)(**changed(name))
    torch.manual_seed(0)
    found = transform(photograph())
    torch.manual_seed(0)
    again = pickle.loads(pickle.dumps(transform))(photograph())
    if name in VIEWS:
        found, again = [found], [again]
    assert isinstance(found, list) and len(found) == len(views_of(transform))
    for view, same, maker in zip(found, again, views_of(transform), strict=True):
        assert view.shape == (3, maker.side(), maker.side()) and view.dtype == torch.float32
        assert torch.equal(view, same) and view.isfinite().all()


def test_pillow_and_tensors_give_the_same():
    image = photograph()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    transform = lightly.SimCLRTransform(32)
    found = []
    for x in (image, pixels, pixels.contiguous(), pixels.float() / 255):
        torch.manual_seed(0)
        found.append(torch.stack(transform(x)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    # A chain of bytes, in fixed point, is within 0.25 of a level of the chain of floats, which are
    # rounded themselves; 0.224 is the least deviation.
    torch.testing.assert_close(found[0], found[3], rtol=0, atol=0.3 / 255 / 0.224)


@pytest.mark.parametrize(
    ("normalize", "channels"),
    [({"mean": [0.4, 0.5, 0.6], "std": [0.2] * 3}, 3), (None, 1),
     ({"mean": [0.5], "std": [0.25]}, 1), ({"mean": 0.5, "std": torch.tensor(0.25)}, 1)],
)  # fmt: skip
def test_grey_images_are_changed_as_the_library_changes_them(normalize, channels):
    """In brightness and contrast; what it makes of one channel with three means is three."""
    image = photograph().convert("L")
    pixels = torch.from_numpy(np.array(image))[None]
    transform = lightly.SimCLRTransform(32, normalize=normalize, cj_prob=1.0)
    for x in (image, pixels):
        torch.manual_seed(0)
        views = transform(x)
        torch.manual_seed(0)
        colours = transform(image.convert("RGB"))
        for view, colour in zip(views, colours, strict=True):
            assert torch.equal(view, colour[:channels]) and len(view) == channels


def test_one_mean_serves_all_channels_and_two_sides_are_one():
    found = []
    for size, numbers in ((32, [0.5] * 3), ((32, 32), [0.5])):
        transform = lightly.SimCLRTransform(size, normalize={"mean": numbers, "std": numbers})
        torch.manual_seed(0)
        found.append(torch.stack(transform(photograph())))
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="a view must have one side, as views are square, got"):
        lightly.SimCLRTransform((32, 48))(photograph())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: lightly.SimCLRTransform(vf_prob=0.5), ValueError, "vf_prob must be 0 in fastcl"),
        (lambda: lightly.DINOTransform(rr_prob=0.1), ValueError, "rr_prob must be 0 in fastcl"),
        (lambda: lightly.SwaVTransform(vf_prob=1.0), ValueError, "vf_prob must be 0 in fastcl"),
        (lambda: lightly.MMCRTransform(k=0), ValueError, "k must be 1 or more, got 0"),
        (lambda: lightly.SimCLRTransform(8)("x"), TypeError, "image must be one of Pillow or"),
        (lambda: lightly.SimCLRTransform(8)(torch.zeros(2, 2)), ValueError, r"shape \[c, h, w\]"),
        (
            lambda: lightly.SimCLRTransform(8)(photograph().convert("P")),
            ValueError,
            "image must be of mode RGB or L, got P",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
