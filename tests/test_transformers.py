"""Vision transformers: their recipes, the frozen patch projection, the weight decay that rises, and
runs on streamed images of 224 pixels."""

import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

for name in ("lightning_fabric", "sklearn", "safetensors", "rich", "matplotlib"):
    pytest.importorskip(name)

from test_pretrain import some_photographs  # noqa: E402

from fastcl import methods  # noqa: E402
from fastcl.pretrain import inputs  # noqa: E402
from fastcl.pretrain.augment import Views  # noqa: E402
from fastcl.pretrain.backbone import build_backbone, small_side  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402
from fastcl.pretrain.optimizer import build_optimizer, weight_decay_at  # noqa: E402
from fastcl.pretrain.recipe import resolve  # noqa: E402
from fastcl.pretrain.run import Run, build_fabric  # noqa: E402
from fastcl.views import DINO  # noqa: E402

VIT = "timm:vit_tiny_patch16_224"
NUMBERS = torch.zeros(3), torch.ones(3)
GIVEN = {"data": "x", "precision": "32", "devices": 1, "seed": 0}


def test_a_transformer_has_the_recipe_of_its_paper():
    images = some_photographs()
    dino = resolve(images, method="dino", backbone=VIT, **GIVEN)
    assert (dino.optimizer, dino.weight_decay, dino.weight_decay_end) == ("adamw", 0.04, 0.4)
    assert dino.learning_rate == pytest.approx(5e-4 * dino.batch_size / 256) and dino.crops == 8
    assert dino.options["freeze"] == 1 and dino.options["steps"] == 100, "96 images are a batch"
    moco = resolve(images, method="mocov3", backbone="torchvision:vit_b_16", **GIVEN)
    assert moco.options["freeze_patches"] and moco.options["architecture"] == "vit"
    assert (moco.weight_decay, moco.weight_decay_end) == (0.1, None)
    still = resolve(images, method="dino", backbone=VIT, weight_decay=0.1, **GIVEN)
    assert (still.weight_decay, still.weight_decay_end) == (0.1, None), "a given one stays"


@pytest.mark.parametrize("backbone", [None, "resnet18", "timm:resnet50", "timm:convit_tiny"])
def test_other_networks_have_the_others(backbone):
    config = resolve(some_photographs(), method="dino", backbone=backbone, **GIVEN)
    assert config.optimizer == "sgd" and config.weight_decay_end is None
    other = resolve(some_photographs(), method="simclr", backbone=VIT, **GIVEN)
    assert other.optimizer == "sgd", "no recipe of its own"


class Patches(nn.Module):
    """A transformer as far as a patch projection goes."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8)

    def forward(self, x):  # [b, 3, h, w] -> [b, 8]
        return self.head(self.patches(x).mean((2, 3)))


def test_the_patch_projection_of_moco_v3_stays():
    torch.manual_seed(0)
    common = {"width": 8, "hidden": 8, "dim": 4, "architecture": "vit"}
    for freeze in (False, True):
        method = methods.MoCoV3(Patches(), freeze_patches=freeze, momentum=0.5, **common)
        before = {k: x.clone() for k, x in method.state_dict().items() if "patches" in k}
        optimizer = build_optimizer("sgd", method, 0.5, 0.1)
        method(*torch.randn(2, 6, 3, 8, 8)).backward()
        optimizer.step()
        method.update()
        after = method.state_dict()
        assert len(before) == 4, "weight and bias of network and twin"
        assert all(torch.equal(x, after[k]) == freeze for k, x in before.items())
    with pytest.raises(ValueError, match="freeze_patches must be False for Sequential"):
        methods.MoCoV3(nn.Sequential(nn.Conv2d(3, 8, 3)), freeze_patches=True, width=8)


def test_weight_decay_rises_along_half_a_cosine():
    found = [weight_decay_at(step, 100, 0.04, 0.4) for step in range(101)]
    assert found[0] == pytest.approx(0.04) and found[100] == pytest.approx(0.4)
    assert found[50] == pytest.approx(0.22) and found == sorted(found)
    assert found[25] == pytest.approx(0.4 - 0.36 * (1 + math.cos(math.pi / 4)) / 2)


def test_a_run_raises_the_decay_of_matrices_alone(tmp_path):
    images = some_photographs()
    config = resolve(images, method="dino", backbone="small", epochs=2, batch_size=32,
                     optimizer="adamw", learning_rate=1e-3, **GIVEN)  # fmt: skip
    config = replace(config, weight_decay=0.1, weight_decay_end=0.5)

    def run():
        return Run(config, images, tmp_path, build_fabric(1, "32"))

    first = run()
    seen, step = [], first._step

    def watched(*given):
        out = step(*given)
        seen.append([group["weight_decay"] for group in first.optimizer.param_groups])
        return out

    first._step = watched
    first.train(stop_after=1)
    assert seen == [[pytest.approx(weight_decay_at(i, 6, 0.1, 0.5)), 0.0] for i in range(3)]
    matrices, vectors = first.optimizer.param_groups
    assert all(p.dim() > 1 for p in matrices["params"]) and matrices["params"]
    assert all(p.dim() < 2 for p in vectors["params"]) and vectors["params"]
    again = run()
    again.resume(tmp_path / "checkpoint.pt")
    assert again.train() and again.optimizer.param_groups[0]["weight_decay"] > 0.4


@pytest.mark.parametrize(("size", "multiple", "side"), [
    (224, 16, 96), (224, 1, 96), (32, 1, 14), (96, 16, 48), (32, 16, 16), (8, 16, 16),
])  # fmt: skip
def test_small_crops_are_whole_patches(size, multiple, side):
    assert small_side(size, multiple) == side


def of_dino(images, crops, **options):
    views = Views("photographs", 112, NUMBERS, crops, preset=DINO, **options)
    return inputs.crops(views, inputs.Batch(images, torch.arange(len(images)), None))


def test_views_of_dino_are_those_of_its_module():
    images = torch.randint(256, (4, 3, 112, 112), dtype=torch.uint8)
    torch.manual_seed(0)
    expected = DINO(112, 48, 3, mean=None, deviation=None)(images)
    torch.manual_seed(0)
    found = of_dino(images, 3)
    assert [x.shape[-1] for x in found] == [112, 112, 48, 48, 48]
    assert all(torch.equal(x, y) for x, y in zip(found[:2], expected[0], strict=True))
    blurred = Views("photographs", 224, NUMBERS, crops=3, preset=DINO)
    assert (blurred.large, blurred.small) == (DINO.LARGE, DINO.SMALL)
    x = images / 255
    for view in of_dino(images, 1, strength=0.0)[:2]:
        same = [torch.isclose(view, y).flatten(1).all(1) for y in (x, x.flip(3))]
        assert torch.logical_or(*same).all(), "the whole image, mirrored or not"


def pictures(root, count=24):
    """JPEG files of noise a little larger than the views."""
    random = np.random.default_rng(0)
    for i in range(count):
        path = root / "cd"[i % 2] / f"{i:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 256, (16, 18, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((240 + i, 230)).save(path)
    return load_images(str(root), size=224, stream="always")


def timm_is_there():
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mocov3", "dino"])
def test_a_transformer_trains_on_streamed_images_of_224_pixels(method, tmp_path):
    timm_is_there()
    images = pictures(tmp_path / "data")
    assert images.streamed and images.size == 224
    config = resolve(images, method=method, backbone=VIT, epochs=2, batch_size=4, limit=8, **GIVEN)
    run = Run(config, images.draw(8), tmp_path / "run", build_fabric(1, "32"))
    before = {k: x.clone() for k, x in run.backbone.state_dict().items()}
    assert run.train()
    assert len(run.history) == 2 and all(np.isfinite(row["loss"]) for row in run.history)
    after = run.backbone.state_dict()
    still = {k for k, x in before.items() if torch.equal(x, after[k])}
    frozen = {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert still == (frozen if method == "mocov3" else set())
    if method == "dino":
        chance = math.log(run.method.prototypes.weight.shape[0])
        assert run.history[0]["loss"] == pytest.approx(chance, rel=0.05)
        assert run.method.loss.center.any()


def test_a_transformer_takes_small_crops():
    timm_is_there()
    network, width = build_backbone(VIT, channels=3, size=64, small_crops=True)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, width)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, width)
    plain, _ = build_backbone(VIT, channels=3, size=64)
    assert plain.state_dict().keys() == network.state_dict().keys()
    with pytest.raises(ValueError, match="swin.* does not take images of 96 x 96"):
        build_backbone("timm:swin_tiny_patch4_window7_224", channels=3, size=224, small_crops=True)
