"""lightly's transforms with views of several sizes, with its arguments in its order."""

from dataclasses import dataclass

from ._lightly_transforms import Degrees, Normalize, imagenet
from ._lightly_views import MultiViewTransform, ViewTransform, refuse


@dataclass
class SmoGViewTransform(ViewTransform):
    """A view of SMoG."""

    crop_size: int = 224
    crop_min_scale: float = 0.2
    crop_max_scale: float = 1.0
    gaussian_blur_prob: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    solarize_prob: float = 0.0
    hf_prob: float = 0.5
    cj_prob: float = 1.0
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    normalize: Normalize = imagenet()

    def side(self) -> int:
        return self.crop_size

    def scale(self) -> tuple[float, float]:
        return self.crop_min_scale, self.crop_max_scale

    def chances(self) -> tuple[float, float]:
        return self.gaussian_blur_prob, self.solarize_prob


@dataclass
class SMoGTransform(MultiViewTransform):
    """Large and small views of SMoG."""

    crop_sizes: tuple[int, int] = (224, 96)
    crop_counts: tuple[int, int] = (4, 4)
    crop_min_scales: tuple[float, float] = (0.2, 0.05)
    crop_max_scales: tuple[float, float] = (1.0, 0.2)
    gaussian_blur_probs: tuple[float, float] = (0.5, 0.1)
    gaussian_blur_sigmas: tuple[float, float] = (0.1, 2)
    solarize_probs: tuple[float, float] = (0.0, 0.2)
    hf_prob: float = 0.5
    cj_prob: float = 1.0
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    normalize: Normalize = imagenet()

    def __post_init__(self) -> None:
        kinds = zip(
            self.crop_counts, self.crop_sizes, self.crop_min_scales, self.crop_max_scales,
            self.gaussian_blur_probs, self.solarize_probs, strict=True,
        )  # fmt: skip
        super().__init__([
            view for count, size, low, high, blur, solarise in kinds
            for view in [self._view(size, low, high, blur, solarise)] * count
        ])  # fmt: skip

    def _view(self, size, low, high, blur, solarise) -> SmoGViewTransform:
        return SmoGViewTransform(
            size, low, high, blur, self.gaussian_blur_sigmas, solarise, self.hf_prob,
            self.cj_prob, self.cj_strength, self.cj_bright, self.cj_contrast, self.cj_sat,
            self.cj_hue, self.random_gray_scale, self.normalize,
        )  # fmt: skip


@dataclass
class SwaVTransform(MultiViewTransform):
    """Large and small views of SwAV."""

    crop_sizes: tuple[int, int] = (224, 96)
    crop_counts: tuple[int, int] = (2, 6)
    crop_min_scales: tuple[float, float] = (0.14, 0.05)
    crop_max_scales: tuple[float, float] = (1.0, 0.14)
    hf_prob: float = 0.5
    vf_prob: float = 0.0
    rr_prob: float = 0.0
    rr_degrees: Degrees = None
    cj_prob: float = 0.8
    cj_strength: float = 1.0
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.8
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: float = 0.5
    sigmas: tuple[float, float] = (0.1, 2)
    normalize: Normalize = imagenet()

    def __post_init__(self) -> None:
        refuse(self)
        kinds = zip(
            self.crop_counts, self.crop_sizes, self.crop_min_scales, self.crop_max_scales,
            strict=True,
        )  # fmt: skip
        super().__init__([
            view for count, size, low, high in kinds
            for view in [self._view(size, low, high)] * count
        ])  # fmt: skip

    def _view(self, size: int, low: float, high: float) -> ViewTransform:
        return SmoGViewTransform(
            size, low, high, self.gaussian_blur, self.sigmas, 0.0, self.hf_prob, self.cj_prob,
            self.cj_strength, self.cj_bright, self.cj_contrast, self.cj_sat, self.cj_hue,
            self.random_gray_scale, self.normalize,
        )  # fmt: skip


@dataclass
class DINOViewTransform(ViewTransform):
    """A view of DINO; bilinear here, bicubic in the library."""

    crop_size: int = 224
    crop_scale: tuple[float, float] = (0.4, 1.0)
    hf_prob: float = 0.5
    vf_prob: float = 0
    rr_prob: float = 0
    rr_degrees: Degrees = None
    cj_prob: float = 0.8
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: float = 1.0
    sigmas: tuple[float, float] = (0.1, 2)
    solarization_prob: float = 0.2
    normalize: Normalize = imagenet()

    def side(self) -> int:
        return self.crop_size

    def scale(self) -> tuple[float, float]:
        return tuple(self.crop_scale)

    def chances(self) -> tuple[float, float]:
        return self.gaussian_blur, self.solarization_prob


@dataclass
class DINOTransform(MultiViewTransform):
    """Two large views of DINO and its small ones; bilinear here, bicubic in the library."""

    global_crop_size: int = 224
    global_crop_scale: tuple[float, float] = (0.4, 1.0)
    local_crop_size: int = 96
    local_crop_scale: tuple[float, float] = (0.05, 0.4)
    n_local_views: int = 6
    hf_prob: float = 0.5
    vf_prob: float = 0
    rr_prob: float = 0
    rr_degrees: Degrees = None
    cj_prob: float = 0.8
    cj_strength: float = 0.5
    cj_bright: float = 0.8
    cj_contrast: float = 0.8
    cj_sat: float = 0.4
    cj_hue: float = 0.2
    random_gray_scale: float = 0.2
    gaussian_blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    sigmas: tuple[float, float] = (0.1, 2)
    solarization_prob: float = 0.2
    normalize: Normalize = imagenet()

    def __post_init__(self) -> None:
        first, second, small = self.gaussian_blur
        large = self.global_crop_size, self.global_crop_scale
        # lightly does not hand the strength to the second view, whatever it is.
        second_strength = DINOViewTransform.cj_strength
        local = self._view(self.local_crop_size, self.local_crop_scale, self.cj_strength, small, 0)
        super().__init__([
            self._view(*large, self.cj_strength, first, 0),
            self._view(*large, second_strength, second, self.solarization_prob),
            *[local] * self.n_local_views,
        ])  # fmt: skip

    def _view(self, size, scale, strength, blur, solarise) -> DINOViewTransform:
        return DINOViewTransform(
            size, scale, self.hf_prob, self.vf_prob, self.rr_prob, self.rr_degrees, self.cj_prob,
            strength, self.cj_bright, self.cj_contrast, self.cj_sat, self.cj_hue,
            self.random_gray_scale, blur, self.sigmas, solarise, self.normalize,
        )  # fmt: skip
