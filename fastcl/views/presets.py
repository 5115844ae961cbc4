"""The views of the methods of one size, with their papers' numbers."""

from dataclasses import replace

from torch import Tensor

from .module import Views
from .recipe import Recipe


class SimCLR(Views):
    """Two views as in SimCLR: crops of 8 to 100 % of the area, mirror image, colours (0.8, 0.8,
    0.8, 0.2 times the strength) at 80 %, grey at 20 %, and from 96 pixels on blur at 50 %.

    On CIFAR the paper takes strength 0.5 and no blur.

    Args, Returns, Raises: As for `Views`.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
    Representations", appendix A; CIFAR: appendix B.9.
    """

    RECIPES = 2 * (
        Recipe(
            mirror=0.5, jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2,
            grey=0.2, blur=0.5,
        ),
    )  # fmt: skip
    SMALL_ONES_BLURRED = False


class MoCoV1(Views):
    """Two views as in MoCo: crops of 20 to 100 %, mirror image, colours (0.4 each) always, grey at
    20 %, no blur.

    Args, Returns, Raises: As for `Views`.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    section 3.3, with the numbers of the authors' code.
    """

    RECIPES = 2 * (
        Recipe(
            scale=(0.2, 1.0), mirror=0.5, jitter=1.0, brightness=0.4, contrast=0.4,
            saturation=0.4, hue=0.4, grey=0.2,
        ),
    )  # fmt: skip


class MoCoV2(Views):
    """Two views as in MoCo v2: crops of 20 to 100 %, mirror image, colours (0.4, 0.4, 0.4, 0.1) at
    80 %, grey at 20 %, and from 96 pixels on blur at 50 %.

    Args, Returns, Raises: As for `Views`.

    Source: Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning", section 3,
    with the numbers of the authors' code; without blur on CIFAR as there.
    """

    RECIPES = 2 * (replace(MoCoV1.RECIPES[0], jitter=0.8, hue=0.1, blur=0.5),)
    SMALL_ONES_BLURRED = False


class SimSiam(MoCoV2):
    """Two views as in SimSiam, which takes MoCo v2's.

    Args, Returns, Raises: As for `Views`.

    Source: Chen and He 2021, "Exploring Simple Siamese Representation Learning", section 3;
    CIFAR: appendix D.
    """


class BYOL(Views):
    """Two unlike views as in BYOL: both crops of 8 to 100 %, mirror image, colours (0.4, 0.4, 0.2,
    0.1) at 80 % and grey at 20 %; the first always blurred, the second at 10 % and solarised at
    20 %.

    Args, Returns, Raises: As for `Views`.

    Source: Grill et al. 2020, "Bootstrap Your Own Latent", appendix B, table 6.
    """

    RECIPES = (
        Recipe(
            mirror=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1,
            grey=0.2, blur=1.0,
        ),
        Recipe(
            mirror=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1,
            grey=0.2, blur=0.1, solarise=0.2,
        ),
    )  # fmt: skip


class MoCoV3(BYOL):
    """Two unlike views as in MoCo v3, which takes BYOL's.

    Args, Returns, Raises: As for `Views`.

    Source: Chen et al. 2021, "An Empirical Study of Training Self-Supervised Vision
    Transformers", section 4.1.
    """


class Supervised(Views):
    """One view for training with labels: a crop of 8 to 100 % of the area and the mirror image.

    Args: As for `Views`.

    Returns:
        `[b, c, size, size]`; one view has no dimension for the views.

    Raises: As for `Views`.

    Source: Szegedy et al. 2015, "Going Deeper with Convolutions", section 6, as the training of
    ResNets has it: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1.
    """

    RECIPES = (Recipe(mirror=0.5),)

    def joined(self, groups: tuple[Tensor, ...]) -> Tensor:
        return groups[0][0]


class Evaluation(Supervised):
    """The middle of the image, nothing random: resized so that the shorter side is 8/7 of the
    size, 256 for 224, and cut to a square.

    Here the square is cut first, at whole pixels of the image, and resized: what lies half a pixel
    beside it does not reach the view.

    Args, Returns, Raises: As for `Supervised`.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 3.4, as Goyal
    et al. 2017 have it, section 5.1.
    """

    RECIPES = (Recipe(middle=7 / 8),)
