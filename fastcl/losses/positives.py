"""Losses with more to their positives than one of every row."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import _check
from .. import functional as F

# Of one over a learned temperature, as in CLIP: beyond, training becomes unstable.
LARGEST_SCALE = 100.0


class LearnedTemperatureLoss(nn.Module):
    """A loss whose temperature is a constant, or learned from there.

    Args:
        temperature: Positive; where the learned one starts.
        learned: Make it a parameter.

    Attributes:
        log_temperature: `[]`, the logarithm of the temperature, where learned; what the loss takes
            is 0.01 at least, as CLIP has it.
    """

    def __init__(self, temperature: float, learned: bool = False) -> None:
        super().__init__()
        start = _check.positive("temperature", temperature)
        if learned and start < 1 / LARGEST_SCALE:
            raise ValueError(
                f"temperature must be {1 / LARGEST_SCALE} at least where learned, got {start}"
            )
        self.learned = learned
        if learned:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(start)))
        else:
            self.temperature = start

    def current_temperature(self) -> float | Tensor:
        """What the loss is called with."""
        if not self.learned:
            return self.temperature
        return self.log_temperature.clamp(min=-math.log(LARGEST_SCALE)).exp()

    def extra_repr(self) -> str:
        if not self.learned:
            return f"temperature={self.temperature}"
        return f"temperature={float(self.current_temperature()):.4g}, learned=True"


class ContrastLoss(LearnedTemperatureLoss):
    """`functional.contrast` with all of its options that are no tensors of a batch."""

    level_weights: Tensor | None

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        learned: bool = False,
        level_weights: Sequence[float] | None = None,
        positives: str = "mean",
        margin: float | None = None,
        label_smoothing: float = 0.0,
        both: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature, learned)
        _check.one_of("positives", positives, ("mean", "sum"))
        _check.one_of("reduction", reduction, ("mean", "sum", "none"))
        weights = None
        if level_weights is not None:
            weights = torch.tensor([_check.finite("level_weights", x) for x in level_weights])
        self.register_buffer("level_weights", weights, persistent=False)
        self.positives = positives
        self.margin = None if margin is None else _check.finite("margin", margin)
        self.label_smoothing = _check.share("label_smoothing", label_smoothing)
        self.both = both
        self.reduction = reduction

    def forward(
        self,
        query: Tensor,  # [n, d]
        key: Tensor | None = None,  # [m, d]
        *,
        labels: Tensor | tuple[Tensor, Tensor] | None = None,
        targets: Tensor | tuple[Tensor, Tensor] | None = None,
        pairs: tuple[Tensor, Tensor, Tensor | None] | None = None,
        row_weight: Tensor | None = None,  # [n]
        column_bias: Tensor | None = None,  # [m]
        guide: Tensor | tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        return F.contrast(
            query,
            key,
            temperature=self.current_temperature(),
            labels=labels,
            level_weights=self.level_weights,
            targets=targets,
            pairs=pairs,
            positives=self.positives,
            row_weight=row_weight,
            column_bias=column_bias,
            margin=self.margin,
            guide=guide,
            label_smoothing=self.label_smoothing,
            both=self.both,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, positives={self.positives!r}, margin={self.margin}, "
            f"label_smoothing={self.label_smoothing}, both={self.both}, "
            f"reduction={self.reduction!r}"
        )


class MILNCELoss(LearnedTemperatureLoss):
    """`functional.mil_nce`: a bag of keys for every query."""

    def __init__(self, temperature: float = 0.1, *, learned: bool = False) -> None:
        super().__init__(temperature, learned)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:  # [n, d], [n, p, d]
        return F.mil_nce(query, keys, temperature=self.current_temperature())


class RetrievalLoss(LearnedTemperatureLoss):
    """`functional.retrieval`: queries, documents, and what scores too well to be a negative."""

    def __init__(
        self,
        temperature: float = 0.02,
        *,
        learned: bool = False,
        query_query: bool = True,
        document_document: bool = True,
        margin: float | None = None,
    ) -> None:
        super().__init__(temperature, learned)
        self.query_query = query_query
        self.document_document = document_document
        self.margin = None if margin is None else _check.finite("margin", margin)

    def forward(
        self,
        query: Tensor,  # [n, d]
        document: Tensor,  # [n, d]
        hard: Tensor | None = None,  # [n, h, d]
        guide: tuple[Tensor, ...] | None = None,  # [n, g] twice, and [n, h, g]
    ) -> Tensor:
        return F.retrieval(
            query,
            document,
            hard,
            temperature=self.current_temperature(),
            query_query=self.query_query,
            document_document=self.document_document,
            margin=self.margin,
            guide=guide,
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, query_query={self.query_query}, "
            f"document_document={self.document_document}, margin={self.margin}"
        )


class MaxSim(LearnedTemperatureLoss):
    """`functional.max_sim`: queries and documents of many tokens each, by late interaction."""

    def __init__(self, temperature: float = 0.02, *, learned: bool = False) -> None:
        super().__init__(temperature, learned)

    def forward(
        self,
        query: Tensor,  # [n, Lq, d]
        document: Tensor,  # [m, Ld, d]
        query_mask: Tensor | None = None,  # [n, Lq]
        document_mask: Tensor | None = None,  # [m, Ld]
        hard: Tensor | None = None,  # [n, h, Lh, d]
        hard_mask: Tensor | None = None,  # [n, h, Lh]
    ) -> Tensor:
        return F.max_sim(
            query,
            document,
            query_mask,
            document_mask,
            hard,
            hard_mask,
            temperature=self.current_temperature(),
        )


class MatryoshkaLoss(LearnedTemperatureLoss):
    """`functional.matryoshka`: embeddings that can be cut short to any of the widths."""

    def __init__(
        self,
        temperature: float = 0.05,
        *,
        widths: Sequence[int],
        weights: Sequence[float] | None = None,
        learned: bool = False,
    ) -> None:
        super().__init__(temperature, learned)
        for width in widths:
            _check.count("widths", width)
        self.widths = tuple(widths)
        self.weights = None if weights is None else tuple(weights)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:  # [n, d], [n, d]
        return F.matryoshka(
            query,
            key,
            widths=self.widths,
            weights=self.weights,
            temperature=self.current_temperature(),
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, widths={self.widths}, weights={self.weights}"
