"""SwAV: unsupervised learning of visual features by contrasting cluster assignments."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from .._ranks import row_counts
from ..distributed import gather, mean, rank
from ..functional import unit_rows
from ..queue import Queue
from .crops import features
from .heads import batch_norm_head
from .state import Steps, remember


class SwAV(nn.Module):
    """Every crop of an image predicts the prototypes that its two full views are assigned to.

    Args:
        backbone: Maps a batch of images to features `[b, width]`, at any resolution of the crops.
        width: Features of the backbone.
        hidden: Width inside the projection head.
        dim: Width of the embedding.
        prototypes: How many.
        queue_size: Older embeddings that take part in the assignments, of each full view; 0: none.
        queue_from: Steps after which they do, if the queue is full by then.
        freeze: Steps during which the prototypes stay.
        temperature: Positive; divides the cosines in the predictions.
        epsilon: Positive; divides the cosines in the assignments.
        iterations: Of Sinkhorn's algorithm.

    Source: Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments" (arXiv 2006.09882), algorithm 1, with multi-crop.
    """

    queues: Any  # an nn.ModuleList of Queue: its items are no more than modules to a type checker

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        hidden: int = 2048,
        dim: int = 128,
        prototypes: int = 3000,
        queue_size: int = 0,
        queue_from: int = 0,
        freeze: int = 313,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
    ) -> None:
        super().__init__()
        _check.count("prototypes", prototypes, 2)
        self.temperature = _check.positive("temperature", temperature)
        self.epsilon = _check.positive("epsilon", epsilon)
        _check.count("iterations", iterations)
        self.iterations = iterations
        self.queue_from, self.freeze = queue_from, freeze
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden, dim, layers=2, last="bias")
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.queues = nn.ModuleList(
            Queue(queue_size, dim, fill="empty") for _ in range(2 if queue_size else 0)
        )
        self.steps = Steps()
        self._pushed = Steps()  # rows pushed to each queue, known without waiting for the device
        # Of every forward since the update: rows on all ranks, and both full views.
        self._keys: list[tuple[int, list[Tensor]]] = []

    def forward(self, *crops: Tensor) -> Tensor:
        """The loss of crops `[n, ...]`: two full views, then small crops, if any; its mean over
        the global batch when distributed.

        Raises:
            ValueError: Fewer than two crops.
        """
        z = unit_rows(self.head(features(self.backbone, crops)))
        # While frozen the prototypes get a gradient of zero: data parallelism waits for one.
        moving = float(self.steps.count >= self.freeze)
        c: Tensor = self.prototypes
        c = c.detach() + moving * (c - c.detach())
        with record_function("fastcl::loss"):
            scores, counts = list((z @ c.T).chunk(len(crops))), row_counts(crops[0])
            loss = functional.swav(
                scores, temperature=self.temperature, epsilon=self.epsilon,
                iterations=self.iterations, queue=self._others(scores[:2], counts),
            )  # fmt: skip
            loss = mean(loss, rows=len(crops[0]))
        if self.training and self.queues:
            own = [x.detach() for x in z.chunk(len(crops))[:2]]
            remember(self._keys, (sum(counts), own))
        return loss

    @torch.no_grad()
    def _others(self, scores: list[Tensor], counts: list[int]) -> list[Tensor] | None:
        """Scores that take part in the assignments of each view: other ranks' and the queue's."""
        parts: list[list[Tensor]] = [[], []]
        if len(counts) > 1:
            start = sum(counts[: rank()])
            for part, s in zip(parts, scores, strict=True):
                everywhere = gather(s)
                part += [everywhere[:start], everywhere[start + len(s) :]]
        if self._queue_counts():
            for part, queue in zip(parts, self.queues, strict=True):
                part.append(queue.rows.to(self.prototypes.dtype) @ self.prototypes.T)
        return [torch.cat(part) for part in parts] if parts[0] else None

    def _queue_counts(self) -> bool:
        if not self.queues or self.steps.count < self.queue_from:
            return False
        return bool(self._pushed.count >= self.queues[0].rows.shape[0])

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: unit prototypes, and queue the views since the last update."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        with record_function("fastcl::queue"):
            for rows, views in self._keys:
                for queue, x in zip(self.queues, views, strict=True):
                    queue.push(x)
                self._pushed.count += rows
        self._keys.clear()
        self.steps.count += 1
