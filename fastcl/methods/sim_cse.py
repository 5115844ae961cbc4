"""SimCSE: simple contrastive learning of sentence embeddings."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather_with_gradient


class SimCSE(nn.Module):
    """A sentence is recognised from a second pass with other dropout, or from what it entails.

    Args:
        backbone: Maps tokens `[b, length]` to features `[b, width]`, with dropout in training; in
            BERT the first token's.
        width: Features of the backbone.
        temperature: Positive; divides the cosine similarities.
        hard_weight: Added to the logit of a sentence and its own hard negative.

    The head, a layer of the same width with tanh, is for training alone: the embedding of a
    sentence is what the backbone makes of it.

    Source: Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings" (arXiv
    2104.08821), equations 4 and 5.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        temperature: float = 0.05,
        hard_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.temperature = _check.positive("temperature", temperature)
        self.hard_weight = _check.finite("hard_weight", hard_weight)
        self.backbone = backbone
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh())

    def forward(
        self, sentences: Tensor, positives: Tensor | None = None, hard: Tensor | None = None
    ) -> Tensor:
        """The loss, over the global batch when distributed.

        Args:
            sentences: Tokens `[n, length]`.
            positives: Tokens `[n, length]` of sentences that follow from them; None: the sentences
                themselves, once more.
            hard: Tokens `[n, length]` of sentences that contradict them; needs positives.

        Raises:
            ValueError: Hard negatives without positives.
        """
        if hard is not None and positives is None:
            raise ValueError("hard must be given together with positives")
        positives = sentences if positives is None else positives
        kinds = [sentences, positives] if hard is None else [sentences, positives, hard]
        z = self.head(self.backbone(torch.cat(kinds)))
        rows = [gather_with_gradient(x) for x in z.chunk(len(kinds))]
        with record_function("fastcl::loss"):
            return functional.sim_cse(
                *rows, temperature=self.temperature, hard_weight=self.hard_weight
            )

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
