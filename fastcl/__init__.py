"""Contrastive learning at the speed of the hardware."""

from .commands import is_command
from .version import __version__

if not is_command():  # `fastcl --help` does not wait for torch; a command imports what it uses
    from . import distributed, functional, losses, methods, views
    from .bank import Bank
    from .commands.warm_up import warm_up
    from .compat._patch import patch, unpatch
    from .functional.noise import AliasTable
    from .gradient_cache import cached_step
    from .momentum import Momentum
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
    "views",
    "warm_up",
]
