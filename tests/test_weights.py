"""Files of weights: names that other libraries load, what they say of themselves, damage."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

for name in ("safetensors", "PIL", "lightning_fabric", "sklearn", "typer", "rich"):
    pytest.importorskip(name)

from PIL import Image  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import fastcl  # noqa: E402
from fastcl.commands import app as commands  # noqa: E402
from fastcl.commands import finetune  # noqa: E402
from fastcl.evaluate.features import extract  # noqa: E402
from fastcl.pretrain.backbone import build_backbone  # noqa: E402
from fastcl.pretrain.data import load_images  # noqa: E402
from fastcl.pretrain.lab import split_lab  # noqa: E402
from fastcl.pretrain.weights import Facts, Preprocessing, read_weights, save_weights  # noqa: E402

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
FACTS = Facts("resnet18", "cifar", 16, 3, [0.5, 0.4, 0.3], [0.2, 0.25, 0.3], 4)


def library_keys(depths: tuple[int, ...], convolutions: int) -> list[str]:
    """Keys of a ResNet of torchvision and timm without its classifier, in their order."""

    def unit(convolution: str, norm: str) -> list[str]:
        return [f"{convolution}.weight", *(f"{norm}.{part}" for part in NORM)]

    keys = unit("conv1", "bn1")
    for stage, depth in enumerate(depths, 1):
        for i in range(depth):
            block = f"layer{stage}.{i}"
            for c in range(1, convolutions + 1):
                keys += unit(f"{block}.conv{c}", f"{block}.bn{c}")
            # ResNet-50 widens in its first stage already.
            if i == 0 and (stage > 1 or convolutions == 3):
                keys += unit(f"{block}.downsample.0", f"{block}.downsample.1")
    return keys


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize(
    ("backbone", "depths", "convolutions"),
    [("resnet18", (2, 2, 2, 2), 2), ("resnet50", (3, 4, 6, 3), 3)],
)
def test_resnets_have_the_names_of_other_libraries(backbone, depths, convolutions, stem):
    network, _ = build_backbone(backbone, channels=3, size=32, stem=stem)
    state = network.state_dict()
    assert list(state) == library_keys(depths, convolutions)
    assert state["conv1.weight"].shape == (64, 3, *((3, 3) if stem == "cifar" else (7, 7)))
    block, width = ("layer2.0.conv1", 64) if convolutions == 2 else ("layer2.0.conv2", 128)
    assert state[f"{block}.weight"].shape == (128, width, 3, 3)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A run of a ResNet-18 on few digits, fine-tuned without the head, and distilled."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    runner = CliRunner()
    for arguments in (
        ["pretrain", "--method", "simclrv2", "--backbone", "resnet18", "--epochs", "1",
         "--limit", "40", "--batch-size", "20", "--devices", "1", "--out", str(folder)],
        ["finetune", str(folder), "--from-layer", "0", "--steps", "1", "--device", "cpu"],
        ["distill", str(folder), "--student", "small", "--steps", "1", "--device", "cpu"],
    ):  # fmt: skip
        result = runner.invoke(commands.app, arguments)
        assert result.exit_code == 0, result.output
    return folder


def test_saved_backbone_says_what_it_is(pretrained):
    path = pretrained / "backbone.safetensors"
    assert load_file(path).keys() == set(library_keys((2, 2, 2, 2), 2))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    images = load_images("digits", limit=40)
    mean, deviation = images.statistics()
    assert metadata["backbone"] == "resnet18" and metadata["stem"] == "cifar"
    assert (metadata["size"], metadata["channels"], metadata["epoch"]) == ("8", "1", "1")
    assert json.loads(metadata["mean"]) == mean.tolist()
    assert json.loads(metadata["deviation"]) == deviation.tolist()


def test_loaded_backbone_gives_the_features_of_the_run(pretrained):
    from fastcl.evaluate.report import load_run

    _, backbone, images = load_run(pretrained)
    expected = extract(backbone, images.test, images.statistics())
    state = torch.get_rng_state()
    for path in (pretrained, str(pretrained / "backbone.safetensors")):
        network, preprocessing = fastcl.load_backbone(path)
        assert not network.training
        with torch.no_grad():
            torch.testing.assert_close(network(preprocessing(images.test)), expected)
    assert torch.equal(state, torch.get_rng_state()), "loading draws nothing"


def test_classifiers_have_the_names_of_other_libraries(pretrained):
    keys = library_keys((2, 2, 2, 2), 2)
    state = load_file(pretrained / finetune.FINETUNED / finetune.WEIGHTS)
    assert sorted(state) == sorted([*keys, "fc.weight", "fc.bias"])
    network, _ = fastcl.load_backbone(pretrained / finetune.FINETUNED / finetune.WEIGHTS)
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
    student, preprocessing = fastcl.load_backbone(pretrained / "distilled" / finetune.WEIGHTS)
    assert student(preprocessing(torch.zeros(2, 1, 8, 8))).shape == (2, 128)


@pytest.mark.parametrize(
    ("name", "prefix", "channels"),
    [("lab", "parts.0.", 1), ("lab", "parts.1.", 2), ("lightness", "network.", 1)],
)
def test_networks_of_lightness_and_colour_come_out_of_their_file(tmp_path, name, prefix, channels):
    whole, width = build_backbone(f"{name}:resnet18", channels=3, size=32)
    path = tmp_path / "backbone.safetensors"
    save_weights(path, whole.state_dict(), replace(FACTS, backbone=f"{name}:resnet18", size=32))
    state = load_file(path)
    own = {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}
    model, _ = build_backbone("resnet18", channels=channels, size=32)
    model.load_state_dict(own, strict=True)
    network, preprocessing = fastcl.load_backbone(path)
    x = preprocessing(torch.rand(2, 3, 32, 32))
    with torch.no_grad():
        found, all_features = model.eval()(split_lab(x)[channels - 1]), network(x)
    first = width // 2 * (channels - 1)
    assert torch.equal(found, all_features[:, first : first + found.shape[1]])
    page = Path(__file__).parents[1] / "docs" / "evaluation.md"
    assert f"`{prefix}`" in page.read_text(), "the page says so"


def test_preprocessing_of_pictures_and_tensors():
    preprocessing = Preprocessing(FACTS)
    pixels = np.random.default_rng(0).integers(80, 176, (20, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    found = preprocessing(picture)
    square = picture.resize((16, 16), Image.Resampling.BICUBIC, (5, 0, 25, 20))
    x = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (FACTS.mean, FACTS.deviation))
    torch.testing.assert_close(found, (x - mean) / deviation)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    both = preprocessing(tensor.expand(2, 3, 20, 30))
    assert both.shape == (2, 3, 16, 16)
    # Pillow rounds to whole levels after each of its two passes, and near the cut it sees beyond.
    assert ((both[0] - found) * deviation)[..., 2:-2].abs().max() <= 2.01 / 255
    torch.testing.assert_close(preprocessing(tensor / 255), both[0])
    grey = Preprocessing(Facts("small", "auto", 8, 1, [0.3], [0.2], 1))
    assert grey(picture).shape == (1, 8, 8)
    assert preprocessing(picture.convert("RGBA")).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("picture", "error", "message"),
    [
        (torch.zeros(1, 8, 8), ValueError, r"\[\.\.\., 3, h, w\], got \[1, 8, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), TypeError, "uint8 or floats"),
        ("a.png", TypeError, "PIL image or a tensor"),
    ],
)
def test_preprocessing_names_what_it_cannot_take(picture, error, message):
    with pytest.raises(error, match=message):
        Preprocessing(FACTS)(picture)


def test_channels_last_bfloat16_and_shared_weights_come_back(tmp_path):
    shared = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    state = {"a": shared, "b": shared, "c": torch.randn(3).bfloat16(), "d": torch.tensor(7)}
    save_weights(tmp_path / "w.safetensors", state, FACTS)
    facts, found = read_weights(tmp_path / "w.safetensors")
    assert facts == FACTS and found.keys() == state.keys()
    assert all(torch.equal(found[name], x) for name, x in state.items())
    for _ in range(5):
        save_weights(tmp_path / "again.safetensors", state, FACTS)
        assert (tmp_path / "again.safetensors").read_bytes() == (
            tmp_path / "w.safetensors"
        ).read_bytes()


def test_damaged_and_foreign_weights_are_named(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="no weights at"):
        fastcl.load_backbone(path)
    save_weights(path, {"a": torch.zeros(100)}, FACTS)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="is of another network"):
        fastcl.load_backbone(path)
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="no readable safetensors file"):
        fastcl.load_backbone(path)
    path.write_bytes(whole[:-9] + b"flip" + whole[-5:])
    with pytest.raises(ValueError, match="is damaged"):
        fastcl.load_backbone(path)
    from safetensors import safe_open
    from safetensors.torch import load, save_file

    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load(whole), path, metadata | {"size": "[8"})
    with pytest.raises(ValueError, match="w.safetensors' is damaged: its metadata: Expecting"):
        fastcl.load_backbone(path)
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="does not say what network it is of"):
        fastcl.load_backbone(path)


class Patches(nn.Module):
    """Like a vision transformer, bound to the size it was built for."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 3, size, size))

    def forward(self, x):
        assert x.shape[-1] == self.place.shape[-1], "Input height doesn't match model"
        return (x + self.place).flatten(2).mean(2)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_transformers_are_built_for_the_size_of_the_images(monkeypatch, library):
    def vit(num_classes=0, in_chans=3, pretrained=False, weights=None, img_size=None,
            image_size=None):  # fmt: skip
        network = Patches(img_size or image_size or 224)
        network.head = nn.Identity()
        return network

    def rigid(num_classes=0, in_chans=3, pretrained=False, weights=None):
        return vit()

    models = {"vit": vit, "rigid": rigid}

    def create(name, **options):
        return models[name](**options)

    module = SimpleNamespace(list_models=lambda: list(models), create_model=create,
                             get_model=create)  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=module))
    monkeypatch.setitem(sys.modules, "torchvision.models", module)
    network, width = build_backbone(f"{library}:vit", channels=3, size=96)
    assert width == 3 and network.place.shape[-1] == 96
    with pytest.raises(ValueError, match=f"{library}:rigid does not take images of 96 x 96"):
        build_backbone(f"{library}:rigid", channels=3, size=96)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install safetensors"):
        fastcl.load_backbone(tmp_path)
