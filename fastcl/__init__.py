from . import functional
from .version import __version__
