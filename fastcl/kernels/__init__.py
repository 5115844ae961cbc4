"""The Triton kernels, one stem per operator. Importing this package imports no Triton."""

from importlib.util import find_spec


def available() -> bool:
    """Whether Triton is installed; CUDA builds of torch bring it."""
    return find_spec("triton") is not None
