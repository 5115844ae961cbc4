"""MoCo: momentum contrast for unsupervised visual representation learning."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check
from ..contrast.node import row_losses
from ..contrast.problem import problem
from ..distributed import mean, world_size
from ..functional import row_products, unit_rows
from ..momentum import Momentum
from ..queue import Queue
from .batch_norm import shuffled, split_batch_norm
from .heads import linear_head, mlp_head
from .state import move, remember


class MoCo(nn.Module):
    """Every query against its key, encoded by a slowly moving twin, and a queue of older keys.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        version: 1 for a linear head and temperature 0.07 (He et al. 2020, arXiv 1911.05722), 2
            for a head of two layers and temperature 0.2 (Chen et al. 2020, arXiv 2003.04297).
        hidden: Width inside the head of version 2; the backbone's by default.
        dim: Width of the embedding.
        queue_size: Keys kept as negatives.
        momentum: Share of its own weights that the twin keeps at each update.
        temperature: Positive; divides the cosine similarities. The version's by default.
        groups: Of a batch that are batch-normalised by themselves, where one process must do
            without the devices of the paper (8 in its CIFAR-10 demonstration). The batch
            normalisation of the backbone is replaced. 1: the whole batch of a device.

    Keys pass through the twin in another order, on other ranks or in other groups, so that their
    batch statistics do not tell which query they belong to.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        version: int = 2,
        hidden: int | None = None,
        dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        _check.count("groups", groups)
        _check.one_of("version", version, (1, 2))
        temperature = {1: 0.07, 2: 0.2}[version] if temperature is None else temperature
        self.temperature = _check.positive("temperature", temperature)
        self.groups = groups
        self.backbone = split_batch_norm(backbone, groups) if groups > 1 else backbone
        self.head = (
            mlp_head(width, hidden or width, dim) if version == 2 else linear_head(width, dim)
        )
        self.target = Momentum(nn.Sequential(self.backbone, self.head), momentum=momentum)
        self.queue = Queue(queue_size, dim)
        self.rank: Tensor | None = None  # [n] queued keys that score above the positive
        self._keys: list[Tensor] = []  # [n, dim] of every forward since the last update

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of queries from view1 `[n, ...]` against keys from view2 `[n, ...]`, its mean
        over the global batch when distributed."""
        q = unit_rows(self.head(self.backbone(view1)))
        with torch.no_grad():
            company = self.groups > 1 or world_size() > 1
            k = unit_rows(shuffled(self.target, view2) if company else self.target(view2))
        if self.training:
            remember(self._keys, k)
        with record_function("fastcl::loss"):
            columns, scale = self.queue.rows.to(q.dtype), 1 / self.temperature
            pairs = problem(q, columns, own=k, scale=scale, normalize=False)
            result = row_losses(pairs, pivot=row_products(q.detach(), k))
            self.rank = result.rank
            return mean(result.loss)

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: move the twin and queue the keys since the last update."""
        with record_function("fastcl::momentum"):
            move(self.target, self.backbone, self.head)
        with record_function("fastcl::queue"):
            for k in self._keys:
                self.queue.push(k)
        self._keys.clear()
