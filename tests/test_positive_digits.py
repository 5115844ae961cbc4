"""Near convergence lse and positives agree to many digits, and so do their gradients: what is left
of them is right, in 16 bits too."""

import plain_contrast
import pytest
import torch
from case import run

import fastcl.functional as F

N = 65
OWN, EYE = torch.arange(N), torch.eye(N)
WAYS = {
    "own": {},
    "biased": {"column_bias": torch.linspace(-1, 1, N)},
    "levels": {"labels": (torch.stack([OWN, OWN], 1),) * 2},
    "targets": {"targets": (EYE, EYE)},
    "pairs": {"pairs": (OWN, OWN, None)},
    "sum of pairs": {"pairs": (OWN, OWN, None), "positives": "sum"},
    "sum of targets": {"targets": (EYE, EYE), "positives": "sum"},
    "margin": {"margin": 0.1},
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", WAYS)
def test_gradient_of_converged_pairs(way, dtype, reduction):
    """No worse than twice plain PyTorch in the same dtype, and nothing on top: gradients here are
    far below one."""
    query = torch.randn(N, 48, dtype=torch.float64)
    key = query + 0.05 * torch.randn_like(query)
    tensors = {"query": query.to(dtype).double(), "key": key.to(dtype).double()}
    options = {"temperature": 0.1, "reduction": reduction, **WAYS[way]}
    _, exact = run(plain_contrast.contrast, tensors, (), options, torch.float64)
    _, plain = run(plain_contrast.contrast, tensors, (), options, dtype)
    _, ours = run(F.contrast, tensors, (), options, dtype)
    for name, grad in exact.items():
        error, bound = ((x[name] - grad).abs().max() for x in (ours, plain))
        assert error <= 2 * bound, f"d{name} of at most {grad.abs().max():.1e}: {error:.1e}"
