"""Results that are kept for the same arguments."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

F = TypeVar("F", bound=Callable[..., Any])


def kept(most: int) -> Callable[[F], F]:
    """`functools.lru_cache` for functions that make tensors: what is made while PyTorch compiles,
    exports or works with fake tensors has no memory, and is not kept."""

    def of(f: F) -> F:
        looked_up = lru_cache(most)(f)

        @wraps(f)
        def call(*arguments: Any) -> Any:
            if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
                return f(*arguments)
            return looked_up(*arguments)

        return cast(F, call)

    return of
