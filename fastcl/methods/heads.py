"""Projection and prediction heads with the papers' depths and normalisation."""

import torch
from torch import Tensor, nn

from .. import _check
from ..functional.unit_rows import unit_rows


def linear_head(width: int, dim: int) -> nn.Module:
    """InstDisc, InvaSpread, CMC, MoCo v1: one linear layer, `[n, width]` to `[n, dim]`."""
    return nn.Linear(width, dim)


def mlp_head(width: int, hidden: int, dim: int) -> nn.Sequential:
    """MoCo v2: two linear layers without normalisation."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


def batch_norm_head(
    width: int, hidden: int, dim: int, *, layers: int, last: str = "scale"
) -> nn.Sequential:
    """Linear layers with batch normalisation and ReLU between them.

    A layer that is normalised has no bias: the normalisation would take it off again.

    Args:
        width: Of the input.
        hidden: Of all layers but the last.
        dim: Of the last layer.
        layers: Linear layers.
        last: What the last one has: "scale", a norm without shift (SimCLR); "norm", a norm
            (NNCLR); "unit", a norm without parameters (SimSiam, MoCo v3 on ViT); "bias" (SimSiam
            and NNCLR's predictors, SwAV); or "none" (BYOL, MoCo v3 on ResNets, Barlow Twins).
    """
    _check.count("layers", layers)
    _check.one_of("last", last, ("scale", "norm", "unit", "bias", "none"))
    body: list[nn.Module] = []
    for inner in [hidden] * (layers - 1):
        body += [nn.Linear(width, inner, bias=False), nn.BatchNorm1d(inner), nn.ReLU(inplace=True)]
        width = inner
    body.append(nn.Linear(width, dim, bias=last == "bias"))
    if last in ("scale", "norm", "unit"):
        norm = nn.BatchNorm1d(dim, affine=last != "unit")
        if last == "scale":
            norm.register_parameter("bias", None)
        body.append(norm)
    return nn.Sequential(*body)


def gelu_head(
    width: int, hidden: int, dim: int, *, layers: int, batch_norm: bool = False
) -> nn.Sequential:
    """DINO: linear layers with GELU between them, and batch normalisation before it if wanted.

    Args:
        width: Of the input.
        hidden: Of all layers but the last.
        dim: Of the last layer.
        layers: Linear layers.
        batch_norm: For convolutional backbones.
    """
    _check.count("layers", layers)
    body: list[nn.Module] = []
    for inner in [hidden] * (layers - 1):
        body += [nn.Linear(width, inner), *[nn.BatchNorm1d(inner)] * batch_norm, nn.GELU()]
        width = inner
    body.append(nn.Linear(width, dim))
    for layer in body:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*body)


class Prototypes(nn.Module):
    """DINO's last layer: cosines of embeddings with prototypes, `[n, dim]` to `[n, count]`.

    A linear layer without bias under weight normalisation whose norms stay one: lengths of the
    weight mean nothing.

    Args:
        dim: Of the embeddings.
        count: Of the prototypes.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        _check.count("prototypes", count, 2)
        bound = dim**-0.5  # as a linear layer starts
        self.weight = nn.Parameter(torch.empty(count, dim).uniform_(-bound, bound))

    def unit(self, *, frozen: bool = False) -> Tensor:
        """The prototypes, `[count, dim]`. Frozen ones get a gradient of zero: data parallelism
        waits for one."""
        weight = self.weight
        return unit_rows(weight.detach() + 0.0 * weight if frozen else weight)

    def forward(self, z: Tensor) -> Tensor:
        return unit_rows(z) @ self.unit().T


class InformationHead(nn.Module):
    """Deep InfoMax: a hidden layer beside a linear shortcut that starts as a noisy copy.

    Args:
        width: Of the input.
        units: Of the hidden layer and the output.
        local: For a map `[n, width, h, w]`, position by position and with layer normalisation at
            the end; otherwise for rows `[n, width]`.
    """

    def __init__(self, width: int, units: int, *, local: bool) -> None:
        super().__init__()
        layer = (lambda a, b, bias: nn.Conv2d(a, b, 1, bias=bias)) if local else nn.Linear
        norm = nn.BatchNorm2d if local else nn.BatchNorm1d
        self.layers = nn.Sequential(
            layer(width, units, False),
            norm(units),
            nn.ReLU(inplace=True),
            layer(units, units, True),
        )
        self.shortcut = layer(width, units, not local)
        self.norm = nn.LayerNorm(units) if local else None
        if units >= width:
            nn.init.uniform_(self.shortcut.weight, -0.01, 0.01)
            with torch.no_grad():
                self.shortcut.weight.view(units, width).fill_diagonal_(1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(x) + self.shortcut(x)
        return h if self.norm is None else self.norm(h.movedim(1, -1)).movedim(-1, 1)
