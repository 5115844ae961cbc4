"""Networks as safetensors, with what a program must know to use them, and back."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._files import replace_file
from .backbone import build_backbone, stem_of

CLASSIFIER = "fc."  # what a fine-tuned network has beside its backbone, by the names of torchvision


@dataclass(frozen=True)
class Facts:
    """What a file of weights says of its network; each field is an entry of its metadata.

    Args:
        backbone: Name, as `build_backbone` takes it.
        stem: Of the ResNets: "cifar" or "imagenet".
        size: Side of the images in pixels.
        channels: Of the images.
        mean: Of every channel of the training images, in [0, 1].
        deviation: The same.
        epoch: Epochs of pretraining behind it.
    """

    backbone: str
    stem: str
    size: int
    channels: int
    mean: list[float]
    deviation: list[float]
    epoch: int


def facts_of(config, images, epoch: int) -> Facts:  # config: Config, images: Images
    mean, deviation = (x.tolist() for x in images.statistics())
    stem = stem_of(config.stem, config.image_size)
    return Facts(
        config.backbone, stem, config.image_size, images.channels, mean, deviation, epoch
    )  # fmt: skip


class Preprocessing(nn.Module):
    """Pictures to what a backbone takes: cut to the middle square, resized, normalised.

    Args:
        facts: Of the backbone.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.size, self.channels = facts.size, facts.channels
        for name in ("mean", "deviation"):
            value = torch.tensor(getattr(facts, name)).view(-1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, picture) -> Tensor:
        """A PIL image or a tensor to floats of side `size`, normalised.

        Args:
            picture: A PIL image of any mode, or a tensor `[..., channels, h, w]`, uint8 or floats
                in [0, 1].

        Returns:
            `[..., channels, size, size]`; for a PIL image `[channels, size, size]`.

        Raises:
            TypeError, ValueError: Neither, or a tensor of other channels.
        """
        if not isinstance(picture, Tensor):
            picture = self._pixels(picture)
        if picture.dim() < 3 or picture.shape[-3] != self.channels:
            raise ValueError(
                f"picture must have shape [..., {self.channels}, h, w], got {list(picture.shape)}"
            )
        if picture.dtype != torch.uint8 and not picture.is_floating_point():
            raise TypeError(f"picture must be uint8 or floats in [0, 1], got {picture.dtype}")
        x = picture.float() / 255 if picture.dtype == torch.uint8 else picture
        return (self._square(x) - self.mean) / self.deviation

    def _pixels(self, picture) -> Tensor:
        """As `fastcl pretrain` reads the images of a folder."""
        if not hasattr(picture, "convert"):
            raise TypeError(f"picture must be a PIL image or a tensor, got {type(picture)}")
        from PIL import Image

        from ..data.decoding import pixels_of
        from ..data.square import middle_square

        grey = self.channels == 1
        seen = picture.convert("L") if grey else Image.fromarray(pixels_of(picture))
        pixels = np.array(middle_square(seen, self.size))
        return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def _square(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height == width == self.size:
            return x
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        x = x[..., top : top + side, left : left + side]
        flat = x.reshape(-1, *x.shape[-3:])
        flat = F.interpolate(flat, (self.size, self.size), mode="bicubic", antialias=True)
        return flat.clamp(0, 1).view(*x.shape[:-2], self.size, self.size)


def _library() -> ModuleType:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "safetensors":
            raise
        raise ModuleNotFoundError(
            "the weights of a backbone need safetensors: pip install safetensors",
            name="safetensors",
        ) from error
    return safetensors


def save_weights(path: Path, state: dict[str, Tensor], facts: Facts) -> None:
    """A file that other programs load too: tensors by name, and strings of metadata."""
    save = _library().torch.save
    # Copies: safetensors takes neither channels last nor tensors that share memory.
    tensors = {name: torch.empty_like(x, device="cpu", memory_format=torch.contiguous_format)
               .copy_(x) for name, x in state.items()}  # fmt: skip
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in asdict(facts).items()
    }
    metadata |= {"format": "pt", "sha256": _digest(tensors)}
    data = _in_order(save(tensors, metadata))
    replace_file(path, lambda file: file.write(data))


def _in_order(data: bytes) -> bytes:
    """The same file with its header sorted, as equal networks should have equal files: safetensors
    puts metadata in any order. The file is the header's length in 8 bytes, header, tensors."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors start where they are aligned
    return len(header).to_bytes(8, "little") + header + data[end:]


def read_weights(path: Path) -> tuple[Facts, dict[str, Tensor]]:
    """What `save_weights` wrote, on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not such a file, or one whose bytes have changed since.
        ModuleNotFoundError: safetensors is not installed.
    """
    library = _library()
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {str(path)!r}")
    try:
        with library.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (library.SafetensorError, OSError) as error:
        raise ValueError(f"{str(path)!r} is no readable safetensors file: {error}") from error
    missing = Facts.__dataclass_fields__.keys() - metadata.keys()
    if missing:
        raise ValueError(
            f"{str(path)!r} does not say what network it is of, as files of fastcl pretrain do: "
            f"its metadata have no {', '.join(sorted(missing))}"
        )
    if metadata.get("sha256") != _digest(state):
        raise ValueError(f"{str(path)!r} is damaged: its tensors do not have their checksum")
    texts = ("backbone", "stem")
    try:
        fields = {name: metadata[name] if name in texts else json.loads(metadata[name])
                  for name in Facts.__dataclass_fields__}  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is damaged: its metadata: {error}") from error
    return Facts(**fields), state


def load_backbone(path: str | Path) -> tuple[nn.Module, Preprocessing]:
    """The network of a file that `fastcl pretrain`, `finetune` or `distill` wrote.

    Args:
        path: The safetensors file, or a folder, which stands for the backbone in it: of a run, or
            made by `fastcl export --to hub-folder`.

    Returns:
        The backbone, without a classifier, on the CPU in evaluation mode, and what turns a
        picture into its input: ``network(preprocessing(picture)[None])``.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not such a file, a damaged one, or one of another version's network.
        ImportError: The library that has the network is not installed.
    """
    path = Path(path)
    if path.is_dir():
        hub = path / "model.safetensors"
        path = hub if hub.exists() else path / "backbone.safetensors"
    facts, state = read_weights(path)
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced at once
        network, _ = build_backbone(
            facts.backbone, channels=facts.channels, size=facts.size, stem=facts.stem
        )
    own = {name: x for name, x in state.items() if not name.startswith(CLASSIFIER)}
    fill(network, own, path)
    return network.eval(), Preprocessing(facts)


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load all weights; the error names the file they are from."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is of another network: {told[:300]}") from error


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        # Bytes and not numbers: NumPy has no bfloat16.
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
