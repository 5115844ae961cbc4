"""lightly's transforms of one size of views, with its arguments in its order."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from ._lightly_views import IMAGENET_NORMALIZE, MultiViewTransform, ViewTransform

Normalize = dict[str, list[float]] | None
Degrees = float | tuple[float, float] | None


def imagenet() -> Normalize:
    return field(default_factory=lambda: IMAGENET_NORMALIZE)


class Several(MultiViewTransform):
    """Dataclasses with the arguments of one view, of which they make several."""

    VIEW: ClassVar[type[ViewTransform]]

    def count(self) -> int:
        return 2

    def __post_init__(self) -> None:
        arguments = {f.name: getattr(self, f.name) for f in fields(self.VIEW)}
        super().__init__([self.VIEW(**arguments)] * self.count())


@dataclass
class _SimCLR:
    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: Degrees = None
    normalize: Normalize = imagenet()


@dataclass
class SimCLRViewTransform(_SimCLR, ViewTransform):
    """A view of SimCLR."""


@dataclass
class SimCLRTransform(_SimCLR, Several):
    """Two views of SimCLR."""

    VIEW: ClassVar = SimCLRViewTransform


@dataclass
class MoCoV1Transform(SimCLRTransform):
    """Two views of MoCo."""

    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.4
    min_scale: float = 0.2
    gaussian_blur: float = 0.0


@dataclass
class MoCoV2Transform(MoCoV1Transform):
    """Two views of MoCo v2."""

    cj_hue: float = 0.1
    gaussian_blur: float = 0.5


@dataclass
class DenseCLTransform(MoCoV2Transform):
    """Two views of DenseCL, which are MoCo v2's."""


@dataclass
class SimSiamViewTransform(SimCLRViewTransform):
    """A view of SimSiam."""

    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.4
    cj_hue: float = 0.1
    min_scale: float = 0.2


@dataclass
class SimSiamTransform(MoCoV2Transform):
    """Two views of SimSiam."""

    VIEW: ClassVar = SimSiamViewTransform


@dataclass
class _FastSiam:
    num_views: int = 4


@dataclass
class FastSiamTransform(SimSiamTransform, _FastSiam):
    """Four views of SimSiam, or another number."""

    def count(self) -> int:
        return self.num_views


@dataclass
class _BYOL:
    input_size: int = 224
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.4
    cj_contrast: float = 0.4
    cj_sat: float = 0.2
    cj_hue: float = 0.1
    min_scale: float = 0.08
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    solarization_prob: float = 0.0
    sigmas: tuple[float, float] = (0.1, 2)
    vf_prob: float = 0.0
    hf_prob: float = 0.5
    rr_prob: float = 0.0
    rr_degrees: Degrees = None
    normalize: Normalize = imagenet()


@dataclass
class BYOLView1Transform(_BYOL, ViewTransform):
    """The first view of BYOL, always blurred."""

    def chances(self) -> tuple[float, float]:
        return self.gaussian_blur, self.solarization_prob


@dataclass
class BYOLView2Transform(BYOLView1Transform):
    """The second view of BYOL, sometimes solarised."""

    gaussian_blur: float = 0.1
    solarization_prob: float = 0.2


class BYOLTransform(MultiViewTransform):
    """The two views of BYOL."""

    def __init__(
        self,
        view_1_transform: ViewTransform | None = None,
        view_2_transform: ViewTransform | None = None,
    ) -> None:
        first, second = view_1_transform or BYOLView1Transform(), view_2_transform
        super().__init__([first, second or BYOLView2Transform()])


class TiCoTransform(BYOLTransform):
    """The two views of TiCo, which are BYOL's."""


@dataclass
class TiCoView1Transform(BYOLView1Transform):
    """The first of them."""


@dataclass
class TiCoView2Transform(BYOLView2Transform):
    """The second of them."""


@dataclass
class _MMCR:
    k: int = 8


@dataclass
class MMCRTransform(_BYOL, Several, _MMCR):
    """Eight first views of BYOL, or another number."""

    VIEW: ClassVar = BYOLView1Transform

    def count(self) -> int:
        if self.k < 1:
            raise ValueError(f"k must be 1 or more, got {self.k}")
        return self.k
