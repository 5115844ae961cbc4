"""Backbones in the hands of other libraries: their names, their outputs, and what they refuse."""

import json

import pytest
import torch

pytest.importorskip("safetensors")

import fastcl  # noqa: E402
from fastcl.pretrain.backbone import build_backbone  # noqa: E402
from fastcl.pretrain.export import FORMATS, export_backbone  # noqa: E402
from fastcl.pretrain.foreign import SHARED, name_in  # noqa: E402
from fastcl.pretrain.weights import Facts, save_weights  # noqa: E402


def library(name: str):
    """Installed and whole, or the test is skipped by name: torchvision has to fit torch."""
    try:
        return pytest.importorskip(name)
    except RuntimeError as error:
        pytest.skip(f"{name} does not import here: {error}")


def trained(folder, backbone="resnet18", stem="imagenet", channels=3, size=64):
    """A run's file of weights whose running statistics are those of some training, and the
    network."""
    torch.manual_seed(1)
    network, _ = build_backbone(backbone, channels=channels, size=size, stem=stem)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        network(torch.randn(8, channels, size, size))
    facts = Facts(backbone, stem, size, channels, [0.5] * channels, [0.2] * channels, 3)
    save_weights(folder / "backbone.safetensors", network.state_dict(), facts)
    return network.eval()


def used(use: str):
    """The model of the lines that an export says."""
    names = {}
    exec(use, names)
    return names["model"].eval()


@torch.no_grad()
def assert_equal_outputs(model, network, channels, size):
    x = torch.randn(3, channels, size, size)
    expected = network(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("to", ["timm", "torchvision"])
@pytest.mark.parametrize(
    ("backbone", "stem", "channels"),
    [("resnet18", "cifar", 1), ("resnet18", "imagenet", 3), ("resnet18", "imagenet", 1),
     ("resnet50", "cifar", 3), ("resnet50", "imagenet", 3)],
)  # fmt: skip
def test_our_networks_are_those_of_the_libraries(tmp_path, to, backbone, stem, channels):
    library(to)
    network = trained(tmp_path, backbone, stem, channels)
    done = export_backbone(tmp_path, to=to)
    assert done.path == tmp_path / "exported" / f"{to}.safetensors"
    assert "strict=True" in done.use
    assert_equal_outputs(used(done.use), network, channels, 64)


@pytest.mark.parametrize(
    ("backbone", "to", "channels"),
    [("timm:resnet18", "torchvision", 1), ("torchvision:resnet34", "timm", 3),
     ("timm:densenet121", "torchvision", 1), ("timm:densenet161", "torchvision", 4),
     ("timm:vit_tiny_patch16_224", "timm", 3), ("torchvision:vit_b_32", "torchvision", 3),
     ("torchvision:mobilenet_v3_small", "torchvision", 3)],
)  # fmt: skip
def test_networks_of_one_library_go_back_and_to_the_other(tmp_path, backbone, to, channels):
    library("torchvision")
    library("timm")
    network = trained(tmp_path, backbone, "imagenet", channels)
    assert_equal_outputs(used(export_backbone(tmp_path, to=to).use), network, channels, 64)


def test_names_that_both_libraries_share_are_theirs():
    timm, models = library("timm"), library("torchvision").models
    assert set(SHARED) <= set(timm.list_models()) & set(models.list_models())


@pytest.mark.parametrize("to", ["timm", "torchvision"])
def test_without_the_library_the_keys_are_its_own(tmp_path, to):
    """tests/test_weights.py has the libraries' keys written out."""
    from safetensors.torch import load_file

    network = trained(tmp_path, stem="cifar", channels=1)
    done = export_backbone(tmp_path / "backbone.safetensors", to=to, out=tmp_path / "o" / "x")
    state = load_file(tmp_path / "o" / "x")
    assert state.keys() == network.state_dict().keys() and "fc.weight" not in state
    assert all(torch.equal(x, state[name]) for name, x in network.state_dict().items())
    assert done.use.count("model.conv1 = torch.nn.Conv2d(1, 64, 3") == 1
    assert ("model.fc = torch.nn.Identity()" in done.use) == (to == "torchvision")


@pytest.mark.parametrize(
    ("backbone", "stem", "channels", "size"),
    [("resnet18", "cifar", 1, 16), ("small", "cifar", 1, 8), ("lab:resnet18", "cifar", 3, 32),
     ("lightness:small", "cifar", 3, 16)],
)  # fmt: skip
def test_onnx_gives_the_features(tmp_path, backbone, stem, channels, size):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    network = trained(tmp_path, backbone, stem, channels, size)
    session = used_session(export_backbone(tmp_path, to="onnx").use)
    assert [(x.name, x.shape[1:]) for x in session.get_inputs()] == [
        ("images", [channels, size, size])
    ]
    for n in (1, 5):
        x = torch.randn(n, channels, size, size)
        with torch.no_grad():
            expected = network(x)
        (found,) = session.run(["features"], {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    assert json.loads(session.get_modelmeta().custom_metadata_map["mean"]) == [0.5] * channels


def used_session(use: str):
    names = {}
    exec(use, names)
    return names["model"]


def test_hub_folder_is_loaded_by_timm(tmp_path):
    timm = library("timm")
    network = trained(tmp_path, channels=1)
    done = export_backbone(tmp_path, to="hub-folder")
    model = used(done.use)
    assert_equal_outputs(model, network, 1, 64)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (1, 64, 64) and tuple(config["mean"]) == (0.5,)
    assert tuple(config["std"]) == (0.2,)


@pytest.mark.parametrize(("backbone", "stem", "of_timm"), [
    ("resnet18", "imagenet", True), ("resnet18", "cifar", False), ("small", "cifar", False),
])  # fmt: skip
def test_hub_folder_is_loaded_by_fastcl(tmp_path, backbone, stem, of_timm):
    network = trained(tmp_path, backbone, stem)
    folder = tmp_path / "hub"
    for _ in range(2):  # again over itself
        done = export_backbone(tmp_path, to="hub-folder", out=folder)
    assert ("timm" in done.use) == of_timm
    files = {"model.safetensors", "README.md"} | ({"config.json"} if of_timm else set())
    assert {path.name for path in folder.iterdir()} == files
    assert backbone in (folder / "README.md").read_text()
    model, preprocessing = fastcl.load_backbone(folder)
    assert_equal_outputs(model, network, 3, 64)
    assert preprocessing(torch.full((3, 64, 64), 0.7)).unique().item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("backbone", "to", "message"),
    [
        ("small", "timm", "timm has no network with the keys of backbone small"),
        ("small", "torchvision", "--to onnx and --to hub-folder take every backbone"),
        ("lab:resnet18", "timm", "backbone lab:resnet18 sees lightness and colour"),
        ("small", "coreml", "to must be one of timm, torchvision, onnx, hub-folder, got 'coreml'"),
    ],
)
def test_what_has_no_counterpart_is_refused(tmp_path, backbone, to, message):
    trained(tmp_path, backbone)
    with pytest.raises(ValueError, match=message):
        export_backbone(tmp_path, to=to)
    assert {path.name for path in tmp_path.iterdir()} == {"backbone.safetensors"}


def test_names_of_another_library_are_refused():
    with pytest.raises(ValueError, match="torchvision has no network .* timm:vit_tiny"):
        name_in("torchvision", "timm:vit_tiny_patch16_224")
    assert name_in("timm", "timm:vit_tiny_patch16_224") == "vit_tiny_patch16_224"


def test_folders_that_hold_something_else_are_left_alone(tmp_path):
    trained(tmp_path)
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(ValueError, match="a new or empty folder.*holds 'backbone.safetensors'"):
        export_backbone(tmp_path, to="hub-folder", out=tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"
    with pytest.raises(ValueError, match="out must be a file"):
        export_backbone(tmp_path, to="timm", out=tmp_path)
    with pytest.raises(ValueError, match="out must be a folder"):
        export_backbone(tmp_path, to="hub-folder", out=tmp_path / "config.json")


def test_runs_without_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*none"):
        export_backbone(tmp_path / "none", to="timm")
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        export_backbone(tmp_path, to="timm")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="the run is not finished"):
        export_backbone(tmp_path, to="timm")


def test_onnx_names_what_it_needs(tmp_path, monkeypatch):
    from fastcl.pretrain import export_onnx

    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None)
    trained(tmp_path, "small", size=8)
    with pytest.raises(ModuleNotFoundError, match="pip install onnx onnxscript"):
        export_backbone(tmp_path, to="onnx")


def test_the_command_says_how_to_load(tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from fastcl.commands import choices
    from fastcl.commands.app import app

    assert choices.FORMATS == FORMATS
    trained(tmp_path)
    result = CliRunner().invoke(app, ["export", str(tmp_path), "--to", "timm"])
    assert result.exit_code == 0, result.output
    assert "timm.create_model('resnet18', num_classes=0, in_chans=3)" in result.output
    result = CliRunner().invoke(app, ["export", str(tmp_path / "none"), "--to", "timm"])
    assert result.exit_code == 1 and "error: no weights at" in result.output


def test_a_new_start_clears_the_exports(tmp_path):
    from fastcl.pretrain.clearing import clear_run

    trained(tmp_path)
    for to in ("timm", "torchvision", "hub-folder"):
        export_backbone(tmp_path, to=to)
    (tmp_path / "mine.txt").write_text("stays")
    clear_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt"}
