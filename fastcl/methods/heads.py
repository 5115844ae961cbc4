"""Projection heads with the papers' depths and normalisation."""

from torch import nn


def linear_head(width: int, dim: int) -> nn.Module:
    """MoCo v1: one linear layer, `[n, width]` to `[n, dim]`."""
    return nn.Linear(width, dim)


def mlp_head(width: int, hidden: int, dim: int) -> nn.Sequential:
    """MoCo v2: two linear layers without normalisation."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


def batch_norm_head(width: int, hidden: int, dim: int, *, layers: int) -> nn.Sequential:
    """SimCLR: bias-free linear layers, each batch-normalised, the last without a shift."""
    body: list[nn.Module] = []
    for inner in [hidden] * (layers - 1):
        body += [nn.Linear(width, inner, bias=False), nn.BatchNorm1d(inner), nn.ReLU(inplace=True)]
        width = inner
    last = nn.BatchNorm1d(dim)
    last.register_parameter("bias", None)
    return nn.Sequential(*body, nn.Linear(width, dim, bias=False), last)
