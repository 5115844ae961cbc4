"""The modules of fastcl.views: what they return, and the numbers of their papers."""

import copy
import pickle

import pytest
import torch
from view_cases import images

import fastcl.functional as F
from fastcl import views

TWO_VIEWS = views.SimCLR, views.MoCoV1, views.MoCoV2, views.MoCoV3, views.BYOL, views.SimSiam
ONE_VIEW = views.Supervised, views.Evaluation
MULTI_CROP = views.SwAV, views.DINO
# crop, then chances and ranges as the papers' tables have them.
PAPERS = {
    "SimCLR": [((0.08, 1), 0.8, (0.8, 0.8, 0.8, 0.2), 0.2, 0.5, 0.0)] * 2,
    "MoCoV1": [((0.2, 1), 1.0, (0.4, 0.4, 0.4, 0.4), 0.2, 0.0, 0.0)] * 2,
    "MoCoV2": [((0.2, 1), 0.8, (0.4, 0.4, 0.4, 0.1), 0.2, 0.5, 0.0)] * 2,
    "SimSiam": [((0.2, 1), 0.8, (0.4, 0.4, 0.4, 0.1), 0.2, 0.5, 0.0)] * 2,
    "BYOL": [
        ((0.08, 1), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 1.0, 0.0),
        ((0.08, 1), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 0.1, 0.2),
    ],
    "MoCoV3": [
        ((0.08, 1), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 1.0, 0.0),
        ((0.08, 1), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 0.1, 0.2),
    ],
    "SwAV": [((0.14, 1), 0.8, (0.8, 0.8, 0.8, 0.2), 0.2, 0.5, 0.0)] * 2
    + [((0.05, 0.14), 0.8, (0.8, 0.8, 0.8, 0.2), 0.2, 0.5, 0.0)] * 6,
    "DINO": [
        ((0.4, 1), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 1.0, 0.0),
        ((0.4, 1), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 0.1, 0.2),
    ]
    + [((0.05, 0.4), 0.8, (0.4, 0.4, 0.2, 0.1), 0.2, 0.5, 0.0)] * 8,
    "Supervised": [((0.08, 1), 0.0, (0, 0, 0, 0), 0.0, 0.0, 0.0)],
}


def seeded(module, x, seed=0):
    torch.manual_seed(seed)
    return module(x)


@pytest.mark.parametrize("name", PAPERS)
def test_numbers_are_the_papers(name):
    module = getattr(views, name)()
    recipes = (
        module.large_recipes + module.small_recipes if name in ("SwAV", "DINO") else module.recipes
    )
    found = [
        (r.scale, r.jitter, (r.brightness, r.contrast, r.saturation, r.hue), r.grey, r.blur,
         r.solarise)
        for r in recipes
    ]  # fmt: skip
    assert found == PAPERS[name]
    assert all(r.mirror == 0.5 and r.ratio == (3 / 4, 4 / 3) for r in recipes)
    assert all(r.sigma == (0.1, 2.0) and r.threshold == 0.5 for r in recipes)


@pytest.mark.parametrize("preset", TWO_VIEWS)
@pytest.mark.parametrize("form", ["batch", "list", "packed"])
def test_two_views(preset, form):
    module, batch = preset(24), images()
    listed = [batch[0], batch[1, :, :30], batch[2, :, :, 5:9]]
    x = {"batch": batch, "list": listed, "packed": views.pack(listed)}[form]
    first = seeded(module, x)
    assert first.shape == (2, 3, 3, 24, 24) and first.dtype == torch.float32
    assert first.isfinite().all() and not torch.equal(first[0], first[1])
    assert torch.equal(first, seeded(module, x)) and not torch.equal(first, seeded(module, x, 1))


@pytest.mark.parametrize("preset", TWO_VIEWS + ONE_VIEW)
def test_module_is_its_two_calls(preset):
    x = images()
    module = preset(20, dtype=torch.bfloat16, memory_format=torch.channels_last)
    torch.manual_seed(0)
    parameters = views.draw(module.recipes, (3, 40, 50))
    expected = F.random_views(
        x, parameters, size=20, kernel=3, mean=views.IMAGENET_MEAN,
        deviation=views.IMAGENET_DEVIATION, dtype=torch.bfloat16,
        memory_format=torch.channels_last,
    )  # fmt: skip
    expected = expected[0] if preset in ONE_VIEW else expected
    found = seeded(module, x)
    assert torch.equal(found, expected) and found.stride() == expected.stride()


@pytest.mark.parametrize("preset", MULTI_CROP)
def test_multi_crop_is_of_the_same_images(preset):
    module, x = preset(24, 12, 3), list(images())
    large, small = seeded(module, x)
    assert large.shape == (2, 3, 3, 24, 24) and small.shape == (3, 3, 3, 12, 12)
    torch.manual_seed(0)
    sizes = torch.tensor([[40, 50]] * 3)
    for views_, recipes, side in (
        (large, module.large_recipes, 24), (small, module.small_recipes, 12),
    ):  # fmt: skip
        parameters = views.draw(recipes, sizes)
        expected = F.random_views(
            x, parameters, size=side, kernel=side // 20 * 2 + 1, mean=views.IMAGENET_MEAN,
            deviation=views.IMAGENET_DEVIATION,
        )  # fmt: skip
        assert torch.equal(views_, expected)


def test_small_views_of_simclr_and_moco_have_no_blur():
    for preset in (views.SimCLR, views.MoCoV2, views.SimSiam):
        assert [r.blur for r in preset(95).recipes] == [0, 0]
        assert [r.blur for r in preset(96).recipes] == [0.5, 0.5]
    assert [r.blur for r in views.BYOL(32).recipes] == [1.0, 0.1]


def test_evaluation_sees_the_middle():
    x = torch.zeros(1, 3, 80, 100, dtype=torch.uint8)
    x[:, :, 5:75, 15:85] = 255
    module = views.Evaluation(30, mean=None, deviation=None)
    # The bound of one operation on bytes, in fixed point.
    torch.testing.assert_close(module(x), torch.ones(1, 3, 30, 30), rtol=0, atol=0.1 / 255)
    x[:, :, 5] = 0
    assert module(x).min() < 0.9


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_keep_their_colours(channels):
    module = views.SimCLR(16, mean=None, deviation=None)
    x = seeded(module, torch.full((6, channels, 20, 20), 100, dtype=torch.uint8))
    expected = torch.full((2, 6, channels, 16, 16), 100 / 255)
    # Bytes are computed with in fixed point, to a tenth of a grey level.
    torch.testing.assert_close(x, expected, rtol=0, atol=0.1 / 255)
    with pytest.raises(ValueError, match=r"mean must have shape \[1\], got \[3\]"):
        views.SimCLR(16)(torch.zeros(2, 1, 20, 20, dtype=torch.uint8))


def test_layouts_and_statistics():
    x = images()
    module = views.SimCLR(16, mean=[0.5, 0.2, 0.1], deviation=torch.tensor([0.1, 0.2, 0.3]))
    last = views.SimCLR(16, mean=None, deviation=None, layout="hwc")
    plain = seeded(last, x.permute(0, 2, 3, 1).contiguous())
    mean, deviation = (v.view(-1, 1, 1) for v in (module.mean, module.deviation))
    torch.testing.assert_close(seeded(module, x), (plain - mean) / deviation)
    assert module.state_dict() == {}, "weights of a network are saved without its views"


def test_a_generator_of_its_own():
    x = images()
    module = views.SimCLR(16, generator=torch.Generator().manual_seed(7))
    again = pickle.loads(pickle.dumps(module))
    third = copy.deepcopy(module)
    before = torch.get_rng_state()
    first = module(x)
    assert torch.equal(first, again(x)) and torch.equal(first, third(x))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, module(x))
    with pytest.raises(TypeError, match="generator must be a torch.Generator, got int"):
        views.SimCLR(16, generator=7)


@pytest.mark.parametrize("preset", TWO_VIEWS + ONE_VIEW + MULTI_CROP + (views.Digits,))
def test_a_generator_with_the_images(preset):
    module = preset() if preset is views.Digits else preset(24)
    x, before = list(images(h=30, w=30)), torch.get_rng_state()
    made = [module(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    first, same, other = (m if isinstance(m, list) else [m] for m in made)
    assert torch.equal(before, torch.get_rng_state())
    for one, two, three in zip(first, same, other, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three) == (preset is views.Evaluation)


def test_own_recipes():
    recipes = [views.Recipe(mirror=1.0, middle=1.0), views.Recipe(middle=1.0)]
    module = views.Views(20, recipes, mean=None, deviation=None)
    mirrored, plain = module(images(h=40, w=40))
    assert torch.equal(mirrored, plain.flip(3))


def test_digits():
    x = images(c=1, h=8, w=8)
    first = seeded(views.Digits(3), x)
    assert first.shape == (3, 3, 1, 8, 8) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, seeded(views.Digits(3), x))
    assert not torch.equal(first[0], first[1])
    still = views.Digits(1, degrees=0, shift=0, scale=1, shear=0, noise=0, brightness=0)
    torch.testing.assert_close(still(x)[0], x / 255)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_views_can_be_changed_in_place_with_gradients(memory_format):
    """By what is learned, as an operation of the caller's own might be."""
    module, scale = views.SimCLR(8, memory_format=memory_format), torch.ones(1, requires_grad=True)
    parameters = views.draw(module.recipes, (3, 40, 50))
    for made in (
        module(images()),
        F.random_views(images(), parameters, size=8, kernel=1, memory_format=memory_format),
    ):
        expected = made.double().sum().item()
        made.mul_(scale)
        (gradient,) = torch.autograd.grad(made.double().sum(), scale)
        assert gradient.item() == pytest.approx(expected, rel=1e-5)


def test_a_network_of_16_bits_keeps_the_mean_as_it_is():
    plain, lowered = views.BYOL(12), torch.nn.Sequential(views.BYOL(12)).bfloat16()[0]
    assert torch.equal(seeded(plain, images()), seeded(lowered, images()))
    assert lowered.to("meta").mean.device.type == "meta"


def test_modules_are_saved(tmp_path):
    module = views.DINO(12, 9, 2, memory_format=torch.channels_last)
    torch.save(module, tmp_path / "views.pt")
    again = torch.load(tmp_path / "views.pt", weights_only=False)
    assert again.memory_format == torch.channels_last
    for ours, theirs in zip(seeded(again, images()), seeded(module, images()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("module", [views.SimCLR(8), views.DINO(12, 9, 2)], ids=repr)
def test_batches_of_several_sizes_compile(module):
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for b in (3, 2, 1, 3):
        ours, theirs = seeded(compiled, images(b)), seeded(module, images(b))
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


@pytest.mark.parametrize(
    "module",
    [views.SimCLR(8), views.BYOL(9, memory_format=torch.channels_last), views.DINO(10, 7, 2)],
    ids=["SimCLR", "BYOL", "DINO"],
)
def test_modules_are_exported_for_any_batch_and_work_on(module):
    """Before they have run: what an export traces with must not be kept for what comes later."""
    x = images(b=3, h=24, w=31)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},)).module()
    for b in (3, 1, 2):
        ours, theirs = (seeded(f, x[:b]) for f in (module, program))
        pairs = zip(ours, theirs, strict=True)  # of views, or of groups of them
        assert all(torch.equal(one, other) for one, other in pairs)
