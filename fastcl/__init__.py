"""Contrastive learning at the speed of the hardware."""

from ._command import is_command
from .version import __version__

if not is_command():  # `fastcl --help` does not wait for torch; a command imports what it uses
    from . import distributed, functional, losses, methods
    from ._warm_up import warm_up
    from .bank import Bank
    from .compat._patch import patch, unpatch
    from .gradient_cache import cached_step
    from .momentum import Momentum
    from .noise import AliasTable
    from .pretrain.weights import load_backbone
    from .queue import Queue

__all__ = [
    "AliasTable",
    "Bank",
    "Momentum",
    "Queue",
    "__version__",
    "cached_step",
    "distributed",
    "functional",
    "load_backbone",
    "losses",
    "methods",
    "patch",
    "unpatch",
    "warm_up",
]
