"""A backbone as other programs take it: timm, torchvision, ONNX, the Hugging Face hub."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from .._files import replace_file
from ..version import __version__
from .export_onnx import save_onnx
from .foreign import LIBRARIES, loading, name_in
from .weights import Facts, load_backbone, read_weights, save_weights

FORMATS = (*LIBRARIES, "onnx", "hub-folder")
EXPORTED = "exported"
HUB_WEIGHTS, HUB_CONFIG, HUB_CARD = "model.safetensors", "config.json", "README.md"
# What a clone of the hub has beside them.
OF_HUB = {HUB_WEIGHTS, HUB_CONFIG, HUB_CARD, ".git", ".gitattributes"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: The file or folder.
        use: Lines of Python that load it, as `model`.
    """

    path: Path
    use: str


def export_backbone(run: str | Path, *, to: str, out: str | Path | None = None) -> Exported:
    """The backbone of a run in the form that another program loads.

    Args:
        run: A run folder, or a file of weights that fastcl wrote, whose classifier is left out.
        to: "timm" or "torchvision", a safetensors file under the keys of that library; "onnx";
            "hub-folder", a folder that can be pushed to the Hugging Face hub.
        out: The file or folder; below `exported` of the run by default.

    Returns:
        The path, and how to load it.

    Raises:
        FileNotFoundError: No run, or one that is not finished.
        ValueError: An unknown form, a backbone that the library does not have, damaged weights, or
            a folder that holds something else.
        ImportError: A library that builds or writes the network is not installed.
    """
    if to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(FORMATS)}, got {to!r}")
    source = weights_of(Path(run))
    facts, _ = read_weights(source)
    network, _ = load_backbone(source)
    if to in LIBRARIES:
        name, write = f"{to}.safetensors", _save_for(to)
    else:
        name, write = ("backbone.onnx", save_onnx) if to == "onnx" else ("hub-folder", _save_hub)
    path = Path(out) if out is not None else source.parent / EXPORTED / name
    if to in LIBRARIES:
        name_in(to, facts.backbone)  # before anything is written
    if (to == "hub-folder") != path.is_dir() and path.exists():
        kind = "folder" if to == "hub-folder" else "file"
        raise ValueError(f"out must be a {kind}, and {str(path)!r} is none")
    path.parent.mkdir(parents=True, exist_ok=True)
    return Exported(path, write(path, network, facts))


def weights_of(run: Path) -> Path:
    """The file of weights of a run folder; a file as it is.

    Raises:
        FileNotFoundError: Neither, or a run without one yet.
    """
    path = run / "backbone.safetensors"
    if not run.is_dir() or path.exists():
        return path if run.is_dir() else run
    if (run / "config.json").exists():
        raise FileNotFoundError(
            f"{str(run)!r} has no {path.name}: the run is not finished; repeat its command to "
            f"continue it"
        )
    raise FileNotFoundError(f"{str(run)!r} is no run folder: it has no {path.name}")


def _save_for(library: str) -> Callable[[Path, nn.Module, Facts], str]:
    def save(path: Path, network: nn.Module, facts: Facts) -> str:
        use = loading(library, facts, network, str(path))
        save_weights(path, network.state_dict(), facts)
        return use

    return save


def _save_hub(folder: Path, network: nn.Module, facts: Facts) -> str:
    """Weights, how to use them, and timm's description where timm has the network as it is."""
    others = {path.name for path in folder.iterdir()} - OF_HUB if folder.exists() else set()
    if others:
        raise ValueError(
            f"out must be a new or empty folder, and {str(folder)!r} holds {min(others)!r}"
        )
    folder.mkdir(exist_ok=True)
    (folder / HUB_CONFIG).unlink(missing_ok=True)  # of another export
    config = _timm_config(network, facts)
    use = f"import fastcl\n\nmodel, preprocessing = fastcl.load_backbone({str(folder)!r})"
    if config is not None:
        text = json.dumps(config, indent=2) + "\n"
        replace_file(folder / HUB_CONFIG, lambda file: file.write(text.encode()))
        place = f"local-dir:{folder}"
        use = f"import timm\n\nmodel = timm.create_model({place!r}, pretrained=True)"
    save_weights(folder / HUB_WEIGHTS, network.state_dict(), facts)
    card = _card(facts, config is not None)
    replace_file(folder / HUB_CARD, lambda file: file.write(card.encode()))
    return use


def _timm_config(network: nn.Module, facts: Facts) -> dict | None:
    """None where timm has no network that takes these weights without another first layer."""
    try:
        name = name_in("timm", facts.backbone)
    except ValueError:
        return None
    if facts.backbone == name and facts.stem == "cifar":
        return None
    arguments = {"in_chans": facts.channels}
    if getattr(network, "size_option", None) == "img_size":
        arguments["img_size"] = facts.size
    shape = [facts.channels, facts.size, facts.size]
    return {
        "architecture": name, "num_classes": 0, "model_args": arguments,
        "pretrained_cfg": {
            "input_size": shape, "num_classes": 0, "mean": facts.mean, "std": facts.deviation,
            "interpolation": "bicubic", "crop_pct": 1.0, "custom_load": False,
        },
    }  # fmt: skip


def _card(facts: Facts, of_timm: bool) -> str:
    library = "timm" if of_timm else "fastcl"
    lines = [
        "---", f"library_name: {library}", "tags: [image-feature-extraction, fastcl]", "---",
        f"# {facts.backbone}, pretrained without labels", "",
        f"Features of images of {facts.size} x {facts.size} pixels and {facts.channels} channels "
        f"after {facts.epoch} epochs of `fastcl pretrain` (fastcl {__version__}). Images are in "
        f"[0, 1], minus {_rounded(facts.mean)}, over {_rounded(facts.deviation)}, per channel.",
        "", "```python", "import fastcl", "",
        "model, preprocessing = fastcl.load_backbone(FOLDER)  # of a clone or download", "```",
    ]  # fmt: skip
    if of_timm:
        lines += [
            "", "```python", "import timm", "",
            "# or hf-hub:OWNER/NAME",
            'model = timm.create_model("local-dir:FOLDER", pretrained=True)', "```",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rounded(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
