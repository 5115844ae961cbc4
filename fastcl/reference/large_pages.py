"""Advice about the memory of a tensor."""

from torch import Tensor


def large_pages_(x: Tensor) -> None:
    """Ask for pages of 2 MB, before the first of them is touched; the numbers stay as they are."""
