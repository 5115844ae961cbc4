"""What fastcl.compat replaces, one case per class or function, for `benchmarks.migration`.

A case builds the same step from the library's module and from fastcl's: `build(module, n)` returns
a function of the tensors of `inputs(n)`. Sizes are such that the original fits; n is a parameter so
that a test can run each case tiny.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from .cases import BIAS, CLASSES, MOMENTUM, TEMPERATURE, Update
from .migration_case import Inputs, Replaced, rows, views, with_more
from .migration_prototypes import (
    PROTOTYPES,
    dino,
    distilled,
    of_patches,
    patches,
    scores,
    swav,
    two_crops,
    two_crops_scores,
)  # fmt: skip
from .migration_sentences import SENTENCES

KEYS = 256  # queued rows per row of a batch: 65,536 for 256


def _labels(n: int) -> Tensor:
    return torch.arange(n) % max(1, min(CLASSES, n // 4))


def _loss(name: str) -> Callable:
    """A class whose forward has the names of the inputs."""
    return lambda module, n: getattr(module, name)(temperature=TEMPERATURE)


def _clip(name: str, *more: float) -> Callable:
    def build(module, n):
        loss, scale = getattr(module, name)(), torch.tensor(1 / TEMPERATURE)
        return lambda image, text: loss(image, text, scale, *map(torch.tensor, more))

    return build


def _coca(module, n):
    loss, scale = module.CoCaLoss(2.0, 1.0), torch.tensor(1 / TEMPERATURE)
    return lambda image, text, logits, labels: sum(loss(image, text, logits, labels, scale))


def _distill(module, n):
    loss, scale = module.DistillClipLoss(), torch.tensor(1 / TEMPERATURE)
    return lambda image, text, *, x, y: sum(loss(image, text, scale, x, y, scale))


def _networks(n: int) -> Inputs:
    shapes = Update("ResNet-50", limit=0 if n >= 1000 else n).shapes()
    return {f"x{i}": torch.randn(s) for i, s in enumerate(shapes)}


def _momentum(module, n):
    networks = []

    def function(**online):
        if not networks:
            for shift in (0.0, 0.1):
                parameters = (torch.nn.Parameter(x + shift, False) for x in online.values())
                networks.append(torch.nn.ParameterList(parameters))
        module.update_momentum(*networks, MOMENTUM)
        return networks[1][0]

    return function


def _nearest(module, n):
    """A product gives what has no gradient a step to be timed in."""
    bank = module.NNMemoryBankModule((16 * n, 128))
    return lambda out0: (bank(out0.detach()) * out0).sum()


def _regions(module, n):
    """8 regions of every image, of 20 masks."""
    loss = module.DetConSLoss(TEMPERATURE, gather_distributed=False)
    masks = [torch.arange(8 * n).view(n, 8) * (i + 3) % 20 for i in (0, 1)]
    return lambda out0, out1: loss(*(x.view(n, 8, -1) for x in (out0, out1)), *masks)


def _two_branches(module, n):
    loss = module.DetConBLoss(TEMPERATURE, gather_distributed=False)
    masks = [torch.arange(8 * n).view(n, 8) * (i + 3) % 20 for i in (0, 1)]
    return lambda out0, out1, *, x, y: loss(*(z.view(n, 8, -1) for z in (out0, out1, x, y)), *masks)


def _direct(module, n):
    return module.DirectCLRLoss(64, TEMPERATURE)


def _metric_pairs(name: str) -> Callable:
    return lambda module, n: getattr(module, name)()


def _cross_batch(module, n):
    loss = module.SupConLoss(temperature=TEMPERATURE)
    memory = module.CrossBatchMemory(loss, 128, memory_size=32 * n)
    memory.embedding_memory.copy_(rows(32 * n, 128))
    memory.label_memory.copy_(_labels(32 * n))
    memory.has_been_filled = True
    return lambda embeddings, labels: memory(embeddings, labels)


def sup_contrast(features: Tensor, labels: Tensor) -> Tensor:
    """SupContrast's loss as its formula: all views are anchors, temperature 0.07, memory n^2."""
    z = torch.cat(features.unbind(1))
    s = z @ z.T / 0.07
    off = 1 - torch.eye(len(z))
    same = (labels[:, None] == labels).float().repeat(2, 2) * off
    log_p = s - s.masked_fill(off == 0, -torch.inf).logsumexp(1, keepdim=True)
    return -((same * log_p).sum(1) / same.sum(1)).mean()


FORMULA = SimpleNamespace(SupConLoss=lambda: sup_contrast)


def _sup_contrast(module, n):
    loss = module.SupConLoss()
    return lambda features, labels: loss(features, labels)


def _features(n: int) -> Inputs:
    pair = views(128, "z0", "z1")(n).values()
    return {"features": torch.stack([x.detach() for x in pair], 1).requires_grad_()}


def _lightly(name: str, rows: int, size: str, build: Callable, inputs: Callable) -> Replaced:
    elsewhere = {
        "update_momentum": "lightly.models.utils", "sinkhorn": "lightly.loss.swav_loss",
        "NNMemoryBankModule": "lightly.models.modules",
        "HypersphereLoss": "lightly.loss.hypersphere_loss",
    }  # fmt: skip
    home = elsewhere.get(name, "lightly.loss")
    return Replaced("lightly", home, "lightly", name, rows, size, build, inputs)


def _open_clip(name: str, build: Callable, inputs: Callable, size: str = "") -> Replaced:
    size = size or "2,048 x 512"
    return Replaced(
        "open_clip", "open_clip.loss", "open-clip-torch", name, 2048, size, build, inputs
    )


def _metric(name: str, rows: int, size: str, build: Callable, **more: str) -> Replaced:
    home, package = "pytorch_metric_learning.losses", "pytorch-metric-learning"
    inputs = with_more(views(128, "embeddings"), labels=_labels)
    library = "pytorch_metric_learning"
    return Replaced(library, home, package, name, rows, size, build, inputs, **more)


def _info_nce(name: str, rows: int, size: str, inputs: Callable) -> Replaced:
    package, build = "info-nce-pytorch", _loss("InfoNCE")
    return Replaced("info_nce", "info_nce", package, name, rows, size, build, inputs)


def _solo(name: str, rows: int, size: str, build: Callable, inputs: Callable) -> Replaced:
    return Replaced("solo", "solo.losses", "solo-learn", name, rows, size, build, inputs)


def _two_views(module, n):
    """simclr_loss_func of solo-learn 1.0.2, which fastcl.compat has under its later name too."""
    if hasattr(module, "simclr_two_views_loss_func"):
        return lambda z1, z2: module.simclr_two_views_loss_func(z1, z2, TEMPERATURE)
    return lambda z1, z2: module.simclr_loss_func(z1, z2, TEMPERATURE)


_TWO, _VIEWS = "2 x 2,048 x 128", views(128, "out0", "out1")


def _of_regions(n: int) -> Inputs:
    return _VIEWS(8 * n)


_QUEUE = {"queue": lambda n: rows(KEYS * n, 128).T.contiguous()}
_CAPTIONS = {
    "logits": lambda n: torch.randn(n, 4, 64),
    "labels": lambda n: torch.randint(1, 64, (n, 4)),
}
_TEACHER = {k: lambda n: rows(n, 512) for k in "xy"}
_ASSIGNED = {k: lambda n: torch.randn(n, PROTOTYPES).softmax(1) for k in ("assigned0", "assigned1")}

CASES = (
    _lightly("NTXentLoss", 2048, _TWO, _loss("NTXentLoss"), _VIEWS),
    _lightly(
        "NTXentLoss, memory bank", 256, "256 x 65,536 x 128",
        lambda module, n: module.NTXentLoss(TEMPERATURE, memory_bank_size=(KEYS * n, 128)),
        with_more(views(128, "out0"), out1=lambda n: rows(n, 128)),
    ),
    _lightly("DCLLoss", 2048, _TWO, _loss("DCLLoss"), _VIEWS),
    _lightly("DCLWLoss", 2048, _TWO, _loss("DCLWLoss"), _VIEWS),
    _lightly("DirectCLRLoss", 2048, "2 x 2,048 x 64 of 128", _direct, _VIEWS),
    _lightly(
        "HypersphereLoss", 2048, _TWO, lambda module, n: module.HypersphereLoss(),
        views(128, "z_a", "z_b"),
    ),
    _lightly("MACLLoss", 2048, _TWO, _loss("MACLLoss"), views(128, "z0", "z1")),
    _lightly("DetConSLoss", 128, "2 x 128 images x 8 regions x 128", _regions, _of_regions),
    _lightly(
        "DetConBLoss", 128, "2 x 128 images x 8 regions x 128", _two_branches,
        with_more(_of_regions, **{k: lambda n: rows(8 * n, 128) for k in "xy"}),
    ),
    _lightly(
        "VICRegLoss", 256, "2 x 256 x 4,096", lambda module, n: module.VICRegLoss(),
        views(4096, "z_a", "z_b"),
    ),
    _lightly("DINOLoss", 64, "2 of 4 crops, 64 x 65,536 prototypes", dino, distilled),
    _lightly("IBOTPatchLoss", 8, "128 patches x 65,536 prototypes", patches("IBOTPatchLoss"),
             of_patches),
    _lightly("IBOTPlusPlusPatchLoss", 8, "128 patches x 65,536 prototypes",
             patches("IBOTPlusPlusPatchLoss"), of_patches),
    _lightly("SwaVLoss", 512, "2 crops, 512 x 3,000 prototypes", swav, scores),
    _lightly(
        "sinkhorn", 512, "512 x 3,000",
        lambda module, n: module.sinkhorn,
        lambda n: {"out": rows(n, PROTOTYPES)},
    ),
    _lightly(
        "NNMemoryBankModule", 4096, "4,096 x 65,536 x 128", _nearest, views(128, "out0"),
    ),
    _lightly("update_momentum", 2048, "ResNet-50", _momentum, _networks),
    _open_clip("ClipLoss", _clip("ClipLoss"), views(512, "image", "text")),
    _open_clip("SigLipLoss", _clip("SigLipLoss", BIAS), views(512, "image", "text")),
    _open_clip(
        "CoCaLoss", _coca, with_more(views(512, "image", "text"), **_CAPTIONS),
        "2,048 x 512, captions of 4 words of 64",
    ),
    _open_clip("DistillClipLoss", _distill, with_more(views(512, "image", "text"), **_TEACHER)),
    _metric("NTXentLoss", 256, "256 x 128", _loss("NTXentLoss")),
    _metric(
        "NTXentLoss", 8192, "8,192 x 128", _loss("NTXentLoss"),
        cannot="a matrix of its positive pairs by its negative pairs",
    ),
    _metric("SupConLoss", 2048, "2,048 x 128", _loss("SupConLoss")),
    _metric("MultiSimilarityLoss", 2048, "2,048 x 128", _metric_pairs("MultiSimilarityLoss")),
    _metric("TupletMarginLoss", 256, "256 x 128", _metric_pairs("TupletMarginLoss")),
    _metric("CrossBatchMemory", 128, "128 against 4,096 x 128, SupConLoss", _cross_batch),
    _info_nce("InfoNCE, info_nce", 2048, "2,048 x 512", views(512, "query", "positive_key")),
    _info_nce(
        "InfoNCE, info_nce", 256, "256 x 65,536 x 128",
        with_more(views(128, "query", "positive_key"), negative_keys=lambda n: rows(KEYS * n, 128)),
    ),
    Replaced(
        "supcontrast", "", "", "SupConLoss", 1024,
        "2 x 1,024 x 128", _sup_contrast, with_more(_features, labels=_labels), formula=FORMULA,
    ),
    *SENTENCES,
    _solo("DINOLoss", 64, "2 crops, 64 x 65,536 prototypes", two_crops,
          two_crops_scores),
    _solo("simclr_loss_func", 2048, "2 x 2,048 x 128", _two_views, views(128, "z1", "z2")),
    _solo(
        "moco_loss_func", 256, "256 x 65,536 x 128",
        lambda module, n: lambda query, key, queue: module.moco_loss_func(query, key, queue),
        with_more(views(128, "query"), key=lambda n: rows(n, 128), **_QUEUE),
    ),
    _solo(
        "nnclr_loss_func", 2048, "2,048 x 512",
        lambda module, n: lambda nn, p: module.nnclr_loss_func(nn, p, TEMPERATURE),
        with_more(views(512, "p"), nn=lambda n: rows(n, 512)),
    ),
    _solo(
        "ressl_loss_func", 256, "256 x 65,536 x 128",
        lambda module, n: lambda query, key, queue: module.ressl_loss_func(query, key, queue),
        with_more(views(128, "query"), key=lambda n: rows(n, 128),
                  queue=lambda n: rows(KEYS * n, 128)),
    ),
    _solo(
        "vicreg_loss_func", 256, "2 x 256 x 4,096",
        lambda module, n: lambda z1, z2: module.vicreg_loss_func(z1, z2), views(4096, "z1", "z2"),
    ),
    _solo(
        "swav_loss_func", 512, "2 crops, 512 x 3,000 prototypes",
        lambda module, n: lambda scores0, scores1, assigned0, assigned1: module.swav_loss_func(
            [scores0, scores1], [assigned0, assigned1]
        ),
        with_more(scores, **_ASSIGNED),
    ),
)  # fmt: skip
