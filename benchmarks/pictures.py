"""Folders of JPEG files with the detail of photographs, to measure readers by."""

from pathlib import Path

import numpy as np
from PIL import Image

PER_FOLDER = 1000
TEXTURES = 32
# Of photographs the amplitude falls with the frequency; 1.46 gives 500 x 375 at quality 90 the
# 56 KB of ImageNet's.
FALL = 1.46


def texture(side: int, seed: int) -> np.ndarray:  # uint8 [side, side, 3]
    """Noise whose amplitudes fall as in photographs; the three colours mostly agree."""
    random = np.random.default_rng(seed)
    rows, columns = np.meshgrid(*2 * [np.fft.fftfreq(side)], indexing="ij")
    fall = np.maximum(np.hypot(rows, columns), 1 / side) ** -FALL
    noise = random.normal(size=(3, side, side)) + 2 * random.normal(size=(1, side, side))
    planes = np.fft.ifft2(np.fft.fft2(noise) * fall).real
    planes = 128 + 50 * (planes - planes.mean()) / planes.std()
    return planes.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def make_folder(root: Path, count: int, height: int, width: int, quality: int = 90) -> Path:
    """`count` different JPEG files in folders of a thousand; those that are there stay."""
    side = max(height, width) + 64
    textures = [texture(side, seed) for seed in range(TEXTURES)]
    random = np.random.default_rng(0)
    for i in range(count):
        top, left = random.integers(0, side - height + 1), random.integers(0, side - width + 1)
        path = root / f"{i // PER_FOLDER:04}" / f"{i:07}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = textures[i % TEXTURES][top : top + height, left : left + width]
        Image.fromarray(pixels).save(path, quality=quality)
    return root
