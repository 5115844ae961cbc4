"""open_clip: its CLIP, CoCa, distillation and SigLIP losses. Mimics version 3.3.0."""

from ._open_clip_distill import DistillClipLoss
from ._open_clip_sigmoid import SigLipLoss
from ._open_clip_softmax import ClipLoss, CoCaLoss

__all__ = ["ClipLoss", "CoCaLoss", "DistillClipLoss", "SigLipLoss"]
