"""Images from where people have them: decoded as they are seen, in an order that a seed decides."""

from .arrays import Arrays
from .decoding import BadImage, decode, read_image
from .folder import Folder
from .loader import Batch, Loader
from .mapped import Mapped
from .opening import open_images
from .order import Order
from .parts import PartViews
from .shards import Shards
from .source import Part, Source

__all__ = [
    "Arrays", "BadImage", "Batch", "Folder", "Loader", "Mapped", "Order", "Part", "PartViews",
    "Shards", "Source", "decode", "open_images", "read_image",
]  # fmt: skip
