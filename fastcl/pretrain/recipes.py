"""The numbers each method starts from, on each kind of data.

"photographs" are the papers' ImageNet settings for ResNet-50, some with fewer epochs. "thumbnails"
are CIFAR-10 with ResNet-18: the SGD of lightly's benchmark (0.06 per 128 images, weight decay
5e-4), MoCo's from its CIFAR-10 demonstration, InstDisc's and InvaSpread's from the authors' CIFAR
code, MoCo v3, BYOL, NNCLR and DINO with smaller heads. "digits" are small enough for a CPU and our
own. "transformers" are the papers' settings for ViT-S on ImageNet.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """What a method starts from on one kind of data.

    Args:
        learning_rate: Per 256 images of a batch; grows with the batch in proportion.
        warmup: Share of the steps in which the learning rate rises from zero.
        options: Arguments of the method's class. `samples`, `steps`, `size` and `channels`, where
            it has them, are those of the run, and `freeze` is its first epoch.
        crops: Small ones beside two full views.
        space: "lab": two backbones, of lightness and of colour; "lightness": one of lightness.
        weight_decay_end: Where the weight decay of matrices ends, along half a cosine; vectors have
            none then.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup: float
    options: dict = field(default_factory=dict)
    crops: int = 0
    space: str = ""
    weight_decay_end: float | None = None


def _digits(crops: int = 0, learning_rate: float = 0.2, **options) -> Recipe:
    return Recipe(60, 256, "sgd", learning_rate, 5e-4, 0.1, options, crops)


def _thumbnails(
    learning_rate: float = 0.12, batch_size: int = 512, warmup: float = 0.05, crops: int = 0,
    space: str = "", **options,
) -> Recipe:  # fmt: skip
    return Recipe(
        200, batch_size, "sgd", learning_rate, 5e-4, warmup, options, crops=crops, space=space
    )


SMALL = {"hidden": 256, "dim": 64}  # heads for the digits
OWN = {"samples": None}  # filled in by the run
RISING = {"steps": None}
FROZEN = {"freeze": None} | RISING
HOLES = {"size": None, "channels": None}

DIGITS = {
    "instdisc": _digits(temperature=0.1, noise=None, momentum=0.5, **OWN),
    "invaspread": _digits(temperature=0.1),
    "moco": _digits(temperature=0.2, queue_size=512, momentum=0.97),
    "mocov1": _digits(temperature=0.1, queue_size=512, momentum=0.97),
    "mocov3": _digits(temperature=0.2, momentum=0.97, **SMALL, **RISING),
    "simclr": _digits(temperature=0.5),
    "simclrv2": _digits(temperature=0.5),
    "nnclr": _digits(temperature=0.1, queue_size=512, prediction=256, **SMALL),
    "flatnce": _digits(temperature=0.2),
    "dcl": _digits(temperature=0.2),
    "dclw": _digits(temperature=0.2),
    "supcon": _digits(temperature=0.1),
    "cpc": _digits(learning_rate=0.05, patch=4, steps=2, layers=2),
    "dim": _digits(learning_rate=0.05, units=256),
    "swav": _digits(temperature=0.1, prototypes=64, freeze=10, queue_size=0, epsilon=0.05, **SMALL),
    "dino": _digits(
        temperature=0.1, prototypes=256, momentum=0.97, batch_norm=True, **SMALL, **FROZEN
    ),
    "byol": _digits(momentum=0.97, **SMALL, **RISING),
    "simsiam": _digits(hidden=256, dim=256, prediction=64, layers=2),
    "barlowtwins": _digits(learning_rate=0.05, hidden=256, dim=256, off_diagonal=0.0051),
    "vicreg": _digits(learning_rate=0.05, hidden=256, dim=256),
    "rotation": _digits(learning_rate=0.1),
    "jigsaw": _digits(learning_rate=0.1, grid=2, permutations=24),
    "inpainting": _digits(learning_rate=0.05, **HOLES),
}
THUMBNAILS = {
    "instdisc": _thumbnails(0.06, 128, 0.0, temperature=0.1, noise=None, momentum=0.5, **OWN),
    "invaspread": _thumbnails(0.06, 128, 0.0, temperature=0.1),
    "moco": _thumbnails(0.03, 512, 0.0, temperature=0.1, queue_size=4096, momentum=0.99, groups=8),
    "mocov1": _thumbnails(
        0.03, 512, 0.0, temperature=0.1, queue_size=4096, momentum=0.99, groups=8
    ),
    "mocov3": _thumbnails(temperature=0.2, momentum=0.99, hidden=2048, dim=256, **RISING),
    "simclr": _thumbnails(temperature=0.5),
    "simclrv2": _thumbnails(temperature=0.5),
    "nnclr": _thumbnails(temperature=0.1, queue_size=8192, hidden=2048, dim=256, prediction=2048),
    "flatnce": _thumbnails(temperature=0.1),
    "dcl": _thumbnails(temperature=0.1),
    "dclw": _thumbnails(temperature=0.1),
    "supcon": _thumbnails(temperature=0.1),
    "cpc": _thumbnails(0.03, 128, patch=8, steps=3),
    "cmc": _thumbnails(
        0.06, 128, 0.0, space="lab", temperature=0.07, noise=4096, momentum=0.5, **OWN
    ),
    "dim": _thumbnails(0.03, 128, units=1024),
    "swav": _thumbnails(
        crops=4, temperature=0.1, prototypes=512, freeze=100, queue_size=0, epsilon=0.05, hidden=512
    ),
    "dino": _thumbnails(
        crops=4, temperature=0.1, prototypes=2048, momentum=0.99, batch_norm=True, **FROZEN
    ),
    "byol": _thumbnails(momentum=0.99, hidden=1024, dim=256, **RISING),
    "simsiam": _thumbnails(0.03, dim=2048, hidden=2048, prediction=512, layers=2),
    "barlowtwins": _thumbnails(hidden=2048, dim=2048, off_diagonal=0.0051),
    "vicreg": _thumbnails(hidden=2048, dim=2048),
    "rotation": _thumbnails(0.1, 128),
    "jigsaw": _thumbnails(0.05, 128),
    "relative_patch": _thumbnails(0.05, 128),
    "colorization": _thumbnails(0.05, 128, space="lightness"),
    "split_brain": _thumbnails(0.05, 128, space="lab"),
    "inpainting": _thumbnails(0.05, 128, **HOLES),
}
PHOTOGRAPHS = {
    # Wu et al. 2018, section 4; the authors' ImageNet commands.
    "instdisc": Recipe(
        200, 256, "sgd", 0.03, 1e-4, 0.0,
        {"temperature": 0.07, "noise": 4096, "momentum": 0.5, **OWN},
    ),
    "invaspread": Recipe(200, 256, "sgd", 0.03, 1e-4, 0.0, {"temperature": 0.1}),
    # Chen et al. 2020 (arXiv 2003.04297); He et al. 2020, section 3.3.
    "moco": Recipe(
        200, 256, "sgd", 0.03, 1e-4, 0.0,
        {"temperature": 0.2, "queue_size": 65536, "momentum": 0.999},
    ),
    "mocov1": Recipe(
        200, 256, "sgd", 0.03, 1e-4, 0.0,
        {"temperature": 0.07, "queue_size": 65536, "momentum": 0.999},
    ),
    # The authors' CONFIG for ResNet-50 and 100 epochs.
    "mocov3": Recipe(
        100, 4096, "lars", 0.6, 1e-6, 0.1, {"temperature": 1.0, "momentum": 0.99, **RISING}
    ),
    # Chen et al. 2020 (arXiv 2002.05709), section 2.2.
    "simclr": Recipe(100, 1024, "lars", 0.3, 1e-6, 0.1, {"temperature": 0.1}),
    "simclrv2": Recipe(100, 1024, "lars", 0.3, 1e-6, 0.1, {"temperature": 0.1}),
    # Dwibedi et al. 2021, section 4.1.
    "nnclr": Recipe(
        100, 4096, "lars", 0.3, 1e-6, 0.1, {"temperature": 0.1, "queue_size": 98304}
    ),
    "flatnce": Recipe(100, 512, "lars", 0.6, 1e-6, 0.1, {"temperature": 0.1}),
    # Yeh et al. 2022, section 4: SimCLR's baseline at batch 256.
    "dcl": Recipe(100, 256, "sgd", 0.03, 1e-4, 0.0, {"temperature": 0.1}),
    "dclw": Recipe(100, 256, "sgd", 0.03, 1e-4, 0.0, {"temperature": 0.1}),
    "supcon": Recipe(100, 1024, "lars", 0.3, 1e-6, 0.1, {"temperature": 0.1}),
    "cpc": Recipe(100, 128, "adamw", 4e-4, 1e-4, 0.0, {"patch": 64, "steps": 5}),
    # Tian et al. 2020 and the authors' command.
    "cmc": Recipe(
        240, 128, "sgd", 0.06, 1e-4, 0.0,
        {"temperature": 0.07, "noise": 16384, "momentum": 0.5, **OWN}, space="lab",
    ),
    "dim": Recipe(100, 64, "adamw", 4e-4, 0.0, 0.0, {"units": 2048}),
    # The authors' recipe for 400 epochs at batch 256.
    "swav": Recipe(
        200, 256, "lars", 0.6, 1e-6, 0.0,
        {"temperature": 0.1, "prototypes": 3000, "queue_size": 3840, "queue_from": 75000,
         "freeze": 5005, "epsilon": 0.03}, crops=6,
    ),
    # The authors' command for ResNet-50.
    "dino": Recipe(
        100, 512, "sgd", 0.03, 1e-4, 0.1, {"temperature": 0.1, "momentum": 0.996, **FROZEN},
        crops=8,
    ),
    # Grill et al. 2020, appendix, for 100 epochs.
    "byol": Recipe(100, 4096, "lars", 0.45, 1e-6, 0.1, {"momentum": 0.99, **RISING}),
    # Chen and He 2021, section 3.
    "simsiam": Recipe(100, 512, "sgd", 0.05, 1e-4, 0.0, {"prediction": 512}),
    # Zbontar et al. 2021, section 2.2.
    "barlowtwins": Recipe(300, 2048, "lars", 0.2, 1e-6, 0.033, {"off_diagonal": 0.0051}),
    # Bardes et al. 2022, section 4.2.
    "vicreg": Recipe(1000, 2048, "lars", 0.2, 1e-6, 0.01),
    # Pretext tasks: our own, near the papers' (Gidaris et al. 2018: SGD 0.1, batch 192, 5e-4).
    "rotation": Recipe(100, 192, "sgd", 0.1, 5e-4, 0.05),
    "jigsaw": Recipe(100, 256, "sgd", 0.05, 1e-4, 0.05),
    "relative_patch": Recipe(100, 256, "sgd", 0.05, 1e-4, 0.05),
    "colorization": Recipe(100, 128, "sgd", 0.05, 1e-4, 0.05, space="lightness"),
    "split_brain": Recipe(100, 128, "sgd", 0.05, 1e-4, 0.05, space="lab"),
    "inpainting": Recipe(100, 128, "sgd", 0.05, 1e-4, 0.05, HOLES),
}  # fmt: skip
TRANSFORMERS = {
    # Chen et al. 2021, section 4.1 and the authors' CONFIG for ViT-S and 300 epochs.
    "mocov3": Recipe(
        300, 4096, "adamw", 1.5e-4, 0.1, 40 / 300,
        {"architecture": "vit", "freeze_patches": True, "temperature": 0.2, "momentum": 0.99,
         **RISING},
    ),
    # The authors' command for ViT-S and 100 epochs.
    "dino": Recipe(
        100, 1024, "adamw", 5e-4, 0.04, 0.1,
        {"temperature": 0.1, "momentum": 0.996, **FROZEN}, crops=8, weight_decay_end=0.4,
    ),
}  # fmt: skip
RECIPES = {
    (method, kind): recipe
    for kind, recipes in (
        ("digits", DIGITS), ("thumbnails", THUMBNAILS), ("photographs", PHOTOGRAPHS),
        ("transformers", TRANSFORMERS),
    )
    for method, recipe in recipes.items()
}  # fmt: skip
METHODS = tuple(THUMBNAILS)
