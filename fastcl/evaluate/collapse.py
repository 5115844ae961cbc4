"""Whether an embedding has collapsed, and what to try if it has."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from .geometry import effective_rank

# The spread is 1 where the mean of the unit rows is zero, and sqrt(1 - c) where their mean cosine,
# of a row with itself too, is c: this is c above 0.9996.
LEAST_SPREAD = 0.02
# Of the directions that rows and width allow: 4 of 128.
LEAST_RANK = 0.03

REMEDIES = {
    "complete": (
        "lower the learning rate, or lengthen its warmup",
        "without negatives (BYOL, SimSiam): is the predictor there, and the gradient stopped at "
        "the target?",
        "with negatives: a temperature from 0.1 to 0.5; are the two views really of one image?",
        "batch normalisation in the head, with statistics over all devices",
    ),
    "dimensional": (
        "a lower temperature, or a larger batch or queue: more and harder negatives",
        "stronger augmentation: a few easy cues may tell the images apart",
        "a wider or deeper projection head, with batch normalisation",
        "less weight decay, a lower learning rate",
    ),
    "not finite": (
        "lower the learning rate, or lengthen its warmup",
        "32-bit precision; a higher temperature",
    ),
}


@dataclass(frozen=True)
class Diagnosis:
    """How an embedding stands.

    Args:
        spread: Of the normalised rows: 0 at one point, 1 where their mean is zero.
        effective_rank: Of the normalised rows about their mean.
        possible_rank: The smaller of width and rows minus one.
        verdict: "healthy", "complete" (all rows are one), "dimensional" (rows fill few
            directions) or "not finite".
    """

    spread: float
    effective_rank: float
    possible_rank: int
    verdict: str

    @property
    def remedies(self) -> tuple[str, ...]:
        """What to try; empty where healthy."""
        return REMEDIES.get(self.verdict, ())

    def describe(self) -> str:
        """The verdict with its figures in one sentence."""
        figures = (
            f"spread {self.spread:.3f} of 1, effective rank {self.effective_rank:.1f} of "
            f"{self.possible_rank}"
        )
        return {
            "healthy": f"no collapse: {figures}",
            "complete": f"complete collapse, every image has the same embedding: {figures}",
            "dimensional": f"dimensional collapse, the embedding uses few directions: {figures}",
            "not finite": "the embedding is not finite",
        }[self.verdict]


@torch.no_grad()
def diagnose(x: Tensor) -> Diagnosis:
    """Look at a batch of embeddings `[n, d]`, n at least 2.

    Raises:
        ValueError: Fewer than two rows.
        TypeError: Rows that are not floating point.

    Sources: Chen and He 2021, "Exploring Simple Siamese Representation Learning", section 4.1
    (complete collapse); Jing et al. 2022, "Understanding Dimensional Collapse in Contrastive
    Self-supervised Learning".
    """
    _check.rows("x", x)
    n, d = x.shape
    if n < 2:
        raise ValueError(f"x must have two rows or more, got {n}")
    possible = min(n - 1, d)
    z = F.normalize(x.double(), dim=1)
    if not z.isfinite().all():
        return Diagnosis(float("nan"), float("nan"), possible, "not finite")
    # The variances of all dimensions of unit rows sum to 1 - |mean|^2.
    spread = z.var(0, correction=0).sum().sqrt().item()
    rank = effective_rank(z, center=True)
    verdict = "healthy"
    if spread < LEAST_SPREAD:
        verdict = "complete"
    elif possible > 1 and rank < max(1.5, LEAST_RANK * possible):
        verdict = "dimensional"
    return Diagnosis(spread, rank, possible, verdict)


class CollapseWatch:
    """Keeps the latest embeddings of a method in training, and looks at them now and then.

    No forward pass is added: a hook keeps the output of the projection head, or of the backbone
    where the method has no head. A module with neither is not watched.

    Args:
        method: A method of `fastcl.methods`.
        every: Steps between two looks.
    """

    def __init__(self, method: nn.Module, every: int = 200) -> None:
        _check.count("every", every)
        self._every, self._latest = every, None
        self._told: set[str] = set()
        names = ("projector", "head", "backbone")
        found = [getattr(method, name) for name in names if hasattr(method, name)]
        if found:
            found[0].register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self._latest = output.detach()

    def look(self) -> Diagnosis | None:
        """At the latest embeddings; None where there were none, or only one row."""
        if self._latest is None or self._latest.shape[0] < 2:
            return None
        return diagnose(self._latest)

    def due(self, step: int) -> bool:
        """Whether to look after this step, counted from 0."""
        return (step + 1) % self._every == 0

    def warning(self, found: Diagnosis | None) -> str | None:
        """What to tell the user, once for each kind of collapse."""
        if found is None or found.verdict == "healthy" or found.verdict in self._told:
            return None
        self._told.add(found.verdict)
        return "; ".join((found.describe(), *found.remedies))
