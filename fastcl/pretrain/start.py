"""Weights that a run starts from: of timm, torchvision, or another run."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from .backbone import CLASSIFIERS
from .export import HUB_WEIGHTS, weights_of

WRAPPERS = "state_dict", "model"  # under which training scripts keep the weights
NAMED = 4  # keys in a message


def start_from(network: nn.Module, path: Path) -> None:
    """Fill a backbone with the weights of a file; those of a classifier are left out.

    Args:
        network: Any backbone.
        path: A safetensors file, one of `torch.save` with a mapping of tensors, a run folder or a
            folder of the hub.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not such a file, or one of another network; the message names the keys.
    """
    state, own = read_state(path), network.state_dict()
    state = {
        name: x for name, x in state.items()
        if name in own or name.split(".")[0] not in CLASSIFIERS
    }  # fmt: skip
    shapes = [
        f"{name} is {list(x.shape)} and must be {list(own[name].shape)}"
        for name, x in state.items() if name in own and x.shape != own[name].shape
    ]  # fmt: skip
    wrong = {
        "missing": [name for name in own if name not in state],
        "unknown": [name for name in state if name not in own],
        "of another shape": shapes,
    }
    told = [f"{_some(names)} {what}" for what, names in wrong.items() if names]
    if told:
        raise ValueError(f"weights: {str(path)!r} are of another network: {'; '.join(told)}")
    network.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; nothing in it is run.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No file of tensors.
    """
    if path.is_dir():
        path = path / HUB_WEIGHTS if (path / HUB_WEIGHTS).exists() else weights_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file at {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"weights: {str(path)!r} holds more than tensors or is none") from None
    except Exception as error:  # of every kind, by what the bytes happen to be
        told = " ".join(str(error).split())
        raise ValueError(f"weights: {str(path)!r} cannot be read: {told[:200]}") from error
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not (isinstance(state, dict) and all(isinstance(x, Tensor) for x in state.values())):
        raise ValueError(f"weights: {str(path)!r} is no mapping of names to tensors")
    return state


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
