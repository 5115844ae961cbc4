"""Sets of images on the disk, and runs that read them."""

import numpy as np
from PIL import Image

from fastcl.pretrain.data import load_images
from fastcl.pretrain.recipe import resolve
from fastcl.pretrain.run import Run, build_fabric


def draw_set(root, count=70):
    """Noise of different sizes in two classes."""
    random = np.random.default_rng(0)
    for i in range(count):
        path = root / "cd"[i % 2] / f"{i:03}.{'png' if i % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = 18 + i % 5, 16 + i % 7, 3
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return root


def run_of(images, out, method="moco", **choices):
    given = {"epochs": 3, "batch_size": 16, "seed": 5, "backbone": "small"} | choices
    config = resolve(images, method=method, data="x", precision="32", devices=1, **given)
    return Run(config, images, out, build_fabric(1, "32"))


def streamed(folder, **options):
    return load_images(str(folder), size=16, stream="always", **options)
