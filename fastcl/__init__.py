"""Contrastive learning at the speed of the hardware."""

from . import functional, losses, methods
from .momentum import Momentum
from .queue import Queue
from .version import __version__

__all__ = ["Momentum", "Queue", "__version__", "functional", "losses", "methods"]
