"""Pretext tasks: a backbone and a batch in, a loss out; alone or beside another loss."""

from .auxiliary import Auxiliary, FewShot, SemiSupervised, prototype_logits
from .colorization import Colorization, SplitBrain
from .inpainting import Inpainting
from .jigsaw import Jigsaw, permutation_set
from .relative_patch import RelativePatch
from .rotation import Rotation, rotate
from .skip_gram import SkipGram, subsample, word_pairs
from .temporal import TemporalOrder, TimeContrastive, motion_windows

__all__ = [
    "Auxiliary",
    "Colorization",
    "FewShot",
    "Inpainting",
    "Jigsaw",
    "RelativePatch",
    "Rotation",
    "SemiSupervised",
    "SkipGram",
    "SplitBrain",
    "TemporalOrder",
    "TimeContrastive",
    "motion_windows",
    "permutation_set",
    "prototype_logits",
    "rotate",
    "subsample",
    "word_pairs",
]
