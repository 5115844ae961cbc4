"""Parameters of random views for the tests, and what torchvision makes of them."""

import itertools

import torch
from torch import Tensor

IDENTITY = {
    "top": 0, "left": 0, "height": 1, "width": 1, "mirror": 0, "brightness": 1, "contrast": 1,
    "saturation": 1, "hue": 0, "order": 0, "grey": 0, "sigma": 0, "threshold": 2,
}  # fmt: skip
NAMES = tuple(IDENTITY)
ORDERS = tuple(itertools.permutations(range(4)))
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Each operation alone; the crop is added.
OPERATIONS = {
    "crop": {},
    "mirror": {"mirror": 1},
    "darker": {"brightness": 0.3},
    "brighter": {"brightness": 1.8},
    "black": {"brightness": 0},
    "far brighter": {"brightness": 7.5},
    "less contrast": {"contrast": 0.4},
    "more contrast": {"contrast": 1.7},
    "no contrast": {"contrast": 0},
    "far more contrast": {"contrast": 9},
    "less saturation": {"saturation": 0.3},
    "more saturation": {"saturation": 1.9},
    "no saturation": {"saturation": 0},
    "far more saturation": {"saturation": 4},
    **{f"hue {turns}": {"hue": turns} for turns in (-0.5, -0.31, -0.1, 0.01, 0.2, 1 / 3, 0.5)},
    "grey": {"grey": 1},
    **{f"sigma {sigma}": {"sigma": sigma} for sigma in (0.1, 0.7, 2.0, 50.0)},
    "solarised": {"threshold": 0.5},
    "inverted": {"threshold": 0},
}


def record(h: int, w: int, **chosen: float) -> Tensor:
    """One view `[13]`; the whole image unless a crop is chosen."""
    values = {**IDENTITY, "height": h, "width": w, **chosen}
    assert len(values) == len(NAMES)
    return torch.tensor([float(values[name]) for name in NAMES])


def drawn(h: int, w: int, generator: torch.Generator) -> Tensor:
    """A chain in which everything may happen `[13]`."""

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    def whole(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    height, width = whole(1, h), whole(1, w)
    return record(
        h, w, height=height, width=width, top=whole(0, h - height), left=whole(0, w - width),
        mirror=whole(0, 1), brightness=uniform(0.2, 1.8), contrast=uniform(0.2, 1.8),
        saturation=uniform(0.2, 1.8), hue=uniform(-0.5, 0.5), order=whole(0, 23),
        grey=float(uniform(0, 1) < 0.3), sigma=max(0.0, uniform(-2, 2)),
    )  # fmt: skip


def image(c: int, h: int, w: int, dtype: torch.dtype = torch.uint8, seed: int = 0) -> Tensor:
    """`[c, h, w]` with edges, gradients, noise, black and white."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.linspace(0, 1, h)[:, None], torch.linspace(0, 1, w)
    x = torch.stack([(rows + k * columns) / (1 + k) for k in range(c)])
    x = x + 0.3 * torch.randn(c, h, w, generator=g)
    x[:, h // 3 : h // 2] = torch.rand(c, 1, w, generator=g).round()
    x = x.clamp(0, 1)
    scale = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    return x if scale is None else (x * scale).round().to(torch.int32).to(dtype)


def images(b=3, c=3, h=40, w=50):
    """A batch of them."""
    return torch.stack([image(c, h, w, seed=i) for i in range(b)])


def torchvision_view(x: Tensor, parameters: Tensor, size: int, kernel: int) -> Tensor:
    """The view before normalisation by torchvision, of `[c, h, w]` from 0 to 1."""
    from torchvision.transforms.v2 import functional as F

    p = dict(zip(NAMES, parameters.tolist(), strict=True))
    box = [int(p[name]) for name in ("top", "left", "height", "width")]
    x = F.resized_crop(x, *box, [size, size], antialias=True)
    x = F.horizontal_flip(x) if p["mirror"] else x
    adjust = F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue
    for k in ORDERS[int(p["order"])]:
        name = ("brightness", "contrast", "saturation", "hue")[k]
        x = x if p[name] == IDENTITY[name] else adjust[k](x, p[name])
    x = F.rgb_to_grayscale(x, 3) if p["grey"] else x
    x = F.gaussian_blur(x, [kernel, kernel], [p["sigma"]] * 2) if p["sigma"] > 0 else x
    return F.solarize(x, p["threshold"]) if p["threshold"] <= 1 else x
