"""The methods: networks, momentum and queue in, a loss out.

`method(view1, view2)` returns the loss; `method.update()` follows the optimiser step and moves
whatever the optimiser does not; all state is in `state_dict`.
"""

from .moco import MoCo
from .simclr import SimCLR

__all__ = ["MoCo", "SimCLR"]
