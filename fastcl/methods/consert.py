"""ConSERT: contrastive self-supervised sentence representation transfer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather_with_gradient

AUGMENTATIONS = ("none", "shuffle", "token_cutoff", "feature_cutoff", "dropout")


def augment(
    x: Tensor,  # [b, length, width] embeddings of tokens
    real: Tensor,  # [b, length] bool, False for padding
    kind: str,
    rate: float,
) -> Tensor:
    """A view of sentences, made where tokens are embedded and their positions are not yet.

    Args:
        x: `[b, length, width]`.
        real: `[b, length]` bool.
        kind: "none"; "shuffle", the tokens in another order; "token_cutoff", some tokens zero;
            "feature_cutoff", some features of all tokens zero; "dropout", some elements zero, the
            others divided by 1 - rate.
        rate: From 0 to 1, how many: every token, feature or element is drawn by itself.

    Returns:
        `[b, length, width]`.
    """
    b, length, width = x.shape
    if kind == "shuffle":
        # Padding has the highest keys, in order: it stays.
        place = torch.arange(1, length + 1, device=x.device, dtype=torch.float32)
        key = torch.rand(b, length, device=x.device).where(real, place)
        return x.gather(1, key.argsort(1)[:, :, None].expand_as(x))
    if kind == "token_cutoff":
        return x * (torch.rand(b, length, 1, device=x.device) >= rate)
    if kind == "feature_cutoff":
        return x * (torch.rand(b, 1, width, device=x.device) >= rate)
    return F.dropout(x, rate) if kind == "dropout" else x


class ConSERT(nn.Module):
    """Two augmented views of every sentence attract each other and repel the rest of the batch.

    Args:
        embedding: Maps tokens `[b, length]` to embeddings `[b, length, width]`, without positions.
        backbone: Maps these and a mask `[b, length]` (True for tokens, False for padding) to
            features `[b, width]` of the sentences; it adds the positions and has no dropout.
        augmentations: Of each view, from "none", "shuffle", "token_cutoff", "feature_cutoff" and
            "dropout".
        rates: How much of each view is cut off or dropped; unused by "none" and "shuffle".
        temperature: Positive; divides the cosine similarities.

    Shuffling the tokens is shuffling the positions, as the authors' code does.

    Source: Yan et al. 2021, "ConSERT: A Contrastive Framework for Self-Supervised Sentence
    Representation Transfer" (arXiv 2105.11741), section 3.
    """

    def __init__(
        self,
        embedding: nn.Module,
        backbone: nn.Module,
        *,
        augmentations: tuple[str, str] = ("feature_cutoff", "shuffle"),
        rates: tuple[float, float] = (0.2, 0.2),
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if len(augmentations) != 2 or len(rates) != 2:
            raise ValueError("augmentations and rates must be 2, one for each view")
        for kind, rate in zip(augmentations, rates, strict=True):
            _check.one_of("augmentations", kind, AUGMENTATIONS)
            if not 0 <= _check.finite("rates", rate) < 1:
                raise ValueError(f"rates must be from 0 to below 1, got {rate}")
        self.augmentations, self.rates = augmentations, rates
        self.temperature = _check.positive("temperature", temperature)
        self.embedding, self.backbone = embedding, backbone

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """The loss of tokens `[n, length]`, over the global batch when distributed.

        Args:
            tokens: `[n, length]` int64.
            real: `[n, length]` bool, False for padding.
        """
        x = self.embedding(tokens)
        views = [
            augment(x, real, kind, rate)
            for kind, rate in zip(self.augmentations, self.rates, strict=True)
        ]
        z1, z2 = (gather_with_gradient(self.backbone(view, real)) for view in views)
        with record_function("fastcl::loss"):
            return functional.nt_xent(z1, z2, temperature=self.temperature)

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
