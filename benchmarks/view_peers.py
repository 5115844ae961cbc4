"""Random views by other libraries: SimCLR's chain on one image, or on a batch of small ones.

Each is a function that takes no argument and returns a call of an image `[h, w, 3]`, bytes of a
JPEG, or a batch; a library that is not installed raises ImportError.
"""

from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO

import numpy as np
import torch

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIGMA = 0.1, 2.0


def torchvision_v1(size: int, strength: float, blur: bool) -> Callable:
    """On Pillow, as SimCLR's and MoCo's own loaders."""
    from PIL import Image
    from torchvision import transforms as T

    s = strength
    steps = [
        T.RandomResizedCrop(size), T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)], 0.8),
        T.RandomGrayscale(0.2),
    ]  # fmt: skip
    if blur:
        steps.append(T.RandomApply([T.GaussianBlur(size // 20 * 2 + 1, SIGMA)], 0.5))
    view = T.Compose([*steps, T.ToTensor(), T.Normalize(MEAN, DEVIATION)])

    def call(source):
        image = (
            Image.open(BytesIO(source)) if isinstance(source, bytes) else Image.fromarray(source)
        )
        image = image.convert("RGB")
        return view(image), view(image)

    return call


def torchvision_v2(size: int, strength: float, blur: bool) -> Callable:
    """On uint8 tensors; JPEG through simplejpeg."""
    from torchvision.transforms import v2 as T

    s = strength
    steps = [
        T.RandomResizedCrop(size, antialias=True), T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)], 0.8),
        T.RandomGrayscale(0.2),
    ]  # fmt: skip
    if blur:
        steps.append(T.RandomApply([T.GaussianBlur(size // 20 * 2 + 1, SIGMA)], 0.5))
    view = T.Compose([*steps, T.ToDtype(torch.float32, scale=True), T.Normalize(MEAN, DEVIATION)])

    def call(source):
        image = torch.from_numpy(decoded(source)).permute(2, 0, 1)
        return view(image), view(image)

    return call


def albumentations(interpolation: str) -> Callable[[int, float, bool], Callable]:
    """On arrays, by OpenCV; JPEG through simplejpeg."""

    def build(size: int, strength: float, blur: bool):
        import albumentations as A
        import cv2

        cv2.setNumThreads(0)
        s = strength
        flag = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[interpolation]
        steps = [
            A.RandomResizedCrop((size, size), interpolation=flag), A.HorizontalFlip(p=0.5),
            A.ColorJitter(*[(1 - min(0.8 * s, 1), 1 + 0.8 * s)] * 3, (-0.2 * s, 0.2 * s), p=0.8),
            A.ToGray(p=0.2),
        ]  # fmt: skip
        if blur:
            taps = size // 20 * 2 + 1
            steps.append(A.GaussianBlur((taps, taps), SIGMA, p=0.5))
        view = A.Compose([*steps, A.Normalize(MEAN, DEVIATION), A.ToTensorV2()])

        def call(source):
            image = decoded(source)
            return view(image=image)["image"], view(image=image)["image"]

        return call

    return build


def kornia(size: int, strength: float, blur: bool) -> Callable[[torch.Tensor], object]:
    """On a float batch made of the uint8 one."""
    import kornia.augmentation as K

    s = strength
    steps = [
        K.RandomResizedCrop((size, size)), K.RandomHorizontalFlip(),
        K.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=0.8), K.RandomGrayscale(p=0.2),
    ]  # fmt: skip
    if blur:
        taps = size // 20 * 2 + 1
        steps.append(K.RandomGaussianBlur((taps, taps), SIGMA, p=0.5))
    normal = K.Normalize(torch.tensor(MEAN), torch.tensor(DEVIATION))
    view = K.AugmentationSequential(*steps, normal, data_keys=["input"])

    def call(batch):
        x = batch.float() / 255
        return view(x), view(x)

    return call


def dali(jpegs: list[bytes], size: int, strength: float) -> Callable[[], object]:
    """A pipeline on the CPU that decodes once; a call is a batch of all the files."""
    from nvidia.dali import fn, pipeline_def, types

    s = strength

    def view(image):
        draw = fn.random.uniform
        x = fn.random_resized_crop(image, size=(size, size), random_area=(0.08, 1.0))
        x = fn.color_twist(
            x, brightness=draw(range=(1 - 0.8 * s, 1 + 0.8 * s)),
            contrast=draw(range=(1 - 0.8 * s, 1 + 0.8 * s)),
            saturation=draw(range=(1 - 0.8 * s, 1 + 0.8 * s)), hue=draw(range=(-72 * s, 72 * s)),
        )  # fmt: skip
        x = fn.gaussian_blur(x, sigma=draw(range=SIGMA), window_size=size // 20 * 2 + 1)
        return fn.crop_mirror_normalize(
            x, mirror=fn.random.coin_flip(), dtype=types.FLOAT, output_layout="CHW",
            mean=[255 * m for m in MEAN], std=[255 * d for d in DEVIATION],
        )  # fmt: skip

    @pipeline_def(batch_size=len(jpegs), num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipeline():
        files = fn.external_source(source=lambda: [np.frombuffer(x, np.uint8) for x in jpegs])
        image = fn.decoders.image(files)
        return view(image), view(image)

    built = pipeline()
    built.build()
    return built.run


def decoded(source: bytes | np.ndarray) -> np.ndarray:
    """`[h, w, 3]`"""
    if isinstance(source, np.ndarray):
        return source
    import simplejpeg

    return simplejpeg.decode_jpeg(source)


PEERS = {
    "torchvision v1 on Pillow": ("torchvision", torchvision_v1),
    "torchvision v2 on tensors": ("torchvision", torchvision_v2),
    "AlbumentationsX, linear": ("albumentationsx", albumentations("linear")),
    "AlbumentationsX, area": ("albumentationsx", albumentations("area")),
}


def installed(package: str) -> str:
    """Its version; ImportError where there is none."""
    return f"{package} {version(package)}"
