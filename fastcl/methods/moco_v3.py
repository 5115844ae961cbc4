"""MoCo v3: momentum contrast without a queue."""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from .. import _check, functional
from ..distributed import gather, gather_with_gradient
from ..momentum import Momentum
from .heads import batch_norm_head
from .state import Steps, check_schedule, move, rising_momentum


class MoCoV3(nn.Module):
    """The predictions of each view against the momentum keys of the other, of the whole batch.

    Args:
        backbone: Maps a batch of images to features `[b, width]`.
        width: Features of the backbone.
        architecture: "resnet": heads of two layers, the predictor's last without norm; "vit": a
            projector of three layers and norms without parameters at the end of both.
        freeze_patches: Whether the patch projection of a vision transformer keeps its weights, as
            the paper's stop-gradient behind it does.
        hidden: Width inside the heads.
        dim: Width of the embedding.
        momentum: Share of its own weights that the twin keeps at the first update.
        steps: Of the training, over which the momentum rises to one; None: it stays.
        temperature: Positive; divides the cosine similarities. 1 for ResNets and 0.2 for vision
            transformers by default.

    Source: Chen et al. 2021, "An Empirical Study of Training Self-Supervised Vision
    Transformers" (arXiv 2104.02057), algorithm 1; ResNets as in the authors' code.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        width: int,
        architecture: str = "resnet",
        freeze_patches: bool = False,
        hidden: int = 4096,
        dim: int = 256,
        momentum: float = 0.99,
        steps: int | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        _check.one_of("architecture", architecture, ("resnet", "vit"))
        vit = architecture == "vit"
        temperature = (0.2 if vit else 1.0) if temperature is None else temperature
        self.temperature = _check.positive("temperature", temperature)
        check_schedule(momentum, steps)
        self.momentum, self.total_steps = momentum, steps
        if freeze_patches:
            _patch_projection(backbone).requires_grad_(False)
        self.backbone = backbone
        self.head = batch_norm_head(width, hidden, dim, layers=3 if vit else 2, last="unit")
        self.predictor = batch_norm_head(dim, hidden, dim, layers=2, last="unit" if vit else "none")
        self.target = Momentum(nn.Sequential(self.backbone, self.head), momentum=momentum)
        self.steps = Steps()

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two views `[n, ...]`, over the global batch when distributed."""
        q1, q2 = (self.predictor(self.head(self.backbone(view))) for view in (view1, view2))
        with torch.no_grad():
            k1, k2 = self.target(view1), self.target(view2)
        q1, q2 = gather_with_gradient(q1), gather_with_gradient(q2)
        k1, k2 = gather(k1), gather(k2)
        with record_function("fastcl::loss"):
            return functional.moco_v3(q1, q2, k1, k2, temperature=self.temperature)

    @torch.no_grad()
    def update(self) -> None:
        """After the optimiser step: move the twin."""
        with record_function("fastcl::momentum"):
            share = rising_momentum(self.momentum, self.steps.count, self.total_steps)
            move(self.target, self.backbone, self.head, momentum=share)
        self.steps.count += 1


def _patch_projection(backbone: nn.Module) -> nn.Conv2d:
    """The convolution whose stride is its kernel.

    Raises:
        ValueError: There is none.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride > (1, 1):
            return module
    raise ValueError(
        f"freeze_patches must be False for {type(backbone).__name__}, which has no convolution "
        f"whose stride is its kernel, got True"
    )
