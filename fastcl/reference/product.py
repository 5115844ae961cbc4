"""The product of two matrices in plain PyTorch."""

from torch import Tensor

from .common import no_autocast


def product(
    a: Tensor,  # [n, c], or [c, n] where turned
    b: Tensor,  # [c, d], or [d, c] where turned
    a_turned: bool,
    b_turned: bool,
) -> Tensor:
    """a b of two matrices of one dtype, [n, d]."""
    with no_autocast(a):
        return (a.T if a_turned else a) @ (b.T if b_turned else b)
