"""What options of the command line choose from, without torch: `--help` does not wait for it."""

from enum import StrEnum

from ..pretrain.recipes import METHODS

Method = StrEnum("Method", [(name, name) for name in METHODS])
MOCO = Method("moco")
# The names of `warm_up`.
LOSSES = ("clip", "dcl", "flat_nce", "info_nce", "moco", "nt_xent", "siglip", "sup_con")
Loss = StrEnum("Loss", [(name, name) for name in LOSSES])

# Those of `fastcl.commands.views`.
PRESETS = (
    "simclr", "moco-v1", "moco-v2", "moco-v3", "byol", "simsiam", "swav", "dino", "supervised",
    "evaluation", "digits",
)  # fmt: skip
Preset = StrEnum("Preset", [(name, name) for name in PRESETS])
SIMCLR = Preset("simclr")

# Those of `fastcl.pretrain.export`.
FORMATS = "timm", "torchvision", "onnx", "hub-folder"
Format = StrEnum("Format", [(name, name) for name in FORMATS])


class Dtype(StrEnum):
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "32"
    bf16 = "bf16"


class Embedding(StrEnum):
    auto = "auto"
    tsne = "tsne"
    umap = "umap"


class Optimizer(StrEnum):
    sgd = "sgd"
    lars = "lars"
    adamw = "adamw"


class Stem(StrEnum):
    auto = "auto"
    cifar = "cifar"
    imagenet = "imagenet"


class Logger(StrEnum):
    none = "none"
    tensorboard = "tensorboard"
    wandb = "wandb"


class Stream(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class BadImages(StrEnum):
    error = "error"
    skip = "skip"
