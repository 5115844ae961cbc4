"""Any map-style dataset of PyTorch as a source."""

import numpy as np
import torch

from .decoding import BadImage, pixels_of
from .source import digest


class Mapped:
    """What has `len` and `dataset[i]`, as datasets of torchvision and of users.

    An item is an image, or a tuple or a dict with one: the bytes or the path of a file, a Pillow
    image, a uint8 array `[h, w]` or `[h, w, c]`, or a uint8 tensor `[c, h, w]`. An integer behind
    it is its label, which is only known before it is read where `targets` or `labels` lists them.

    Args:
        dataset: The dataset, without its augmentation; its `transform` is applied where it has one.
        image: Key or place of the image in an item.
    """

    def __init__(self, dataset, image: str | int = 0) -> None:
        self.dataset, self.image = dataset, image
        labels = next((getattr(dataset, n) for n in ("targets", "labels") if hasattr(dataset, n)),
                      None)  # fmt: skip
        self.labels = None if labels is None else np.asarray(labels).astype(np.int64)
        if self.labels is not None and self.labels.shape != (len(dataset),):
            raise ValueError(
                f"targets of the dataset must be {len(dataset)} numbers, got shape "
                f"{list(self.labels.shape)}"
            )
        self.classes = tuple(str(name) for name in getattr(dataset, "classes", ()))

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, i: int) -> bytes | np.ndarray:
        try:
            item = self.dataset[i]
        except OSError as error:
            raise BadImage(f"{self.name(i)} cannot be read: {error}") from None
        return _image_of(item[self.image] if isinstance(item, tuple | list | dict) else item, i)

    def name(self, i: int) -> str:
        return f"item {i} of {type(self.dataset).__name__}"

    def fingerprint(self) -> str:
        return digest(len(self), self.labels, self.classes)


def _image_of(image, i: int) -> bytes | np.ndarray:
    from PIL import Image

    if isinstance(image, bytes):
        return image
    if isinstance(image, str):
        with open(image, "rb") as file:
            return file.read()
    if isinstance(image, Image.Image):
        return pixels_of(image).transpose(2, 0, 1)
    if isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.dim() == 3:
        return image.numpy()
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    raise TypeError(
        f"item {i} must be a file, a Pillow image, a uint8 array [h, w, c] or a uint8 tensor "
        f"[c, h, w], got {type(image).__name__}"
        + (f" of {image.dtype} {list(image.shape)}" if hasattr(image, "dtype") else "")
    )
