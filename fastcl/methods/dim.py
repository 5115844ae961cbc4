"""DIM: learning deep representations by mutual information estimation and maximization."""

from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather_with_gradient
from .heads import InformationHead

LOSSES = {
    "jsd": functional.dim_jsd, "nce": functional.dim_nce, "dv": functional.dim_dv,
}  # fmt: skip


class DeepInfoMax(nn.Module):
    """The features of an image are informative about its parts: local Deep InfoMax.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        local: The part of the backbone whose output is a map of local features
            `[b, channels, h, w]`.
        channels: Of that map.
        units: Width in which features and parts are compared.
        estimator: Of the mutual information: "jsd", Jensen-Shannon; "nce", noise-contrastive;
            "dv", Donsker-Varadhan.

    Source: Hjelm et al. 2019, "Learning Deep Representations by Mutual Information Estimation and
    Maximization" (arXiv 1808.06670), section 3.2, without prior matching.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        local: nn.Module,
        channels: int,
        units: int = 2048,
        estimator: str = "jsd",
    ) -> None:
        super().__init__()
        _check.one_of("estimator", estimator, tuple(LOSSES))
        if not any(part is local for part in backbone.modules()):
            raise ValueError(f"local must be a part of the backbone, got a {type(local).__name__}")
        self.estimator = estimator
        self.backbone = backbone
        self._local = (local,)  # in a tuple, or it would be registered and saved twice
        self.local_head = InformationHead(channels, units, local=True)
        self.global_head = InformationHead(width, units, local=False)

    def forward(self, images: Tensor) -> Tensor:
        """The loss of images `[n, ...]`, over the global batch when distributed."""
        features, parts = self._features(images)
        summary = gather_with_gradient(self.global_head(features))
        local = gather_with_gradient(self.local_head(parts).flatten(2))
        with record_function("fastcl::loss"):
            return LOSSES[self.estimator](local, summary[:, :, None])

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of the whole images, and the map of their parts."""
        found = []
        handle = self._local[0].register_forward_hook(lambda *call: found.append(call[-1]))
        try:
            features = self.backbone(images)
        finally:
            handle.remove()
        return features, found[0]

    def update(self) -> None:
        """Nothing moves outside the optimiser."""
