"""Images from where people have them: decoded as they are seen, in an order that a seed decides."""

from .decoding import BadImage, decode, read_image

__all__ = ["BadImage", "decode", "read_image"]
