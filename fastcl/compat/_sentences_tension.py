"""sentence-transformers: contrastive tension, two copies of a model on the same sentences."""

import torch
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.util import cos_sim, dot_score
from torch import Tensor, nn

from ..contrast.node import mean_loss
from ..contrast.problem import problem
from ..reference import accumulate_dtype
from ._common import hooked
from ._sentences_ranking import as_library


class ContrastiveTensionLossInBatchNegatives(losses.ContrastiveTensionLossInBatchNegatives):
    """Every sentence of one copy against all of the other, and the other way, the mean of both.

    Equal to the library's class of this name, with its learned scale, in memory linear in the
    number of rows. Another similarity or cross-entropy takes the library's way.
    """

    def forward(
        self,
        sentence_features: list[dict[str, Tensor]],
        labels: Tensor,
    ) -> Tensor:
        """A scalar; labels are not used."""
        if not self._streams():
            return super().forward(sentence_features, labels)
        features, unit = sentence_features[0], self.similarity_fct is cos_sim
        rows = [model(features)["sentence_embedding"] for model in (self.model1, self.model2)]
        x = rows[0]
        if not torch.is_autocast_enabled(x.device.type):
            rows = [r.to(accumulate_dtype(r.dtype)) for r in rows]
        scale = self.logit_scale.exp()
        p = problem(*rows, scale=scale, diagonal=True, both=True, unit=unit, normalize=unit)
        return as_library(x, mean_loss(p)[0])

    def _streams(self) -> bool:
        entropy = self.cross_entropy_loss
        plain = type(entropy) is nn.CrossEntropyLoss and not hooked(entropy)
        if not plain or self.similarity_fct not in (cos_sim, dot_score):
            return False
        return (entropy.weight, entropy.reduction, entropy.label_smoothing) == (None, "mean", 0.0)
