"""The softmax contrast in Triton: the raw operators, in the arguments of the reference.

info_nce_statistics and info_nce_gradient launch; info_nce_config says which tile runs where.
"""

from .info_nce_gradient import info_nce_backward
from .info_nce_statistics import info_nce_forward

__all__ = ["info_nce_backward", "info_nce_forward"]
