"""What depends on its arguments alone, computed once: the same test in the next instruction set,
for which only the kernels are others, compares with the same."""

import hashlib
from collections import OrderedDict

import torch

BYTES = 1 << 27  # of tensors, beyond which the oldest results go
_RESULTS: OrderedDict[bytes, tuple] = OrderedDict()
_sizes: dict[bytes, int] = {}


def _feed(content, value) -> None:
    if isinstance(value, torch.Tensor):
        content.update(f"{value.dtype} {list(value.shape)} {value.requires_grad}".encode())
        content.update(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, (tuple, list)):
        content.update(f"{type(value).__name__} {len(value)}".encode())
        for x in value:
            _feed(content, x)
    elif isinstance(value, dict):
        _feed(content, [*value.items()])
    elif value is None or isinstance(value, (str, int, float, torch.dtype)):
        content.update(f"{value!r};".encode())
    else:
        raise TypeError(f"cannot tell {type(value).__name__} from another by its content")


def _bytes(value) -> int:
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, (tuple, list)):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, torch.Tensor) else 0


def remembered(function, *arguments, of=()):
    """``function(*of, *arguments)``; of: what is told apart by its identity, as functions are.
    Nobody may write into the result."""
    content = hashlib.blake2b(repr([id(x) for x in (function, *of)]).encode())
    _feed(content, arguments)
    key = content.digest()
    if key not in _RESULTS:
        found = function(*of, *arguments)
        # With what the key names by its identity, which must not become another's.
        _RESULTS[key], _sizes[key] = (found, function, of), _bytes(found)
        while sum(_sizes.values()) > BYTES and len(_RESULTS) > 1:
            oldest, _ = _RESULTS.popitem(last=False)
            del _sizes[oldest]
    return _RESULTS[key][0]
