"""The cases of every suite; sizes come with the reason they are there."""

import torch

from .bank_cases import Assignment, BankUpdate, Noise, Prediction
from .cases import Case, Update

BF16 = torch.bfloat16


def _nt_xent(rows: int, d: int, dtype: torch.dtype = torch.float32, **options) -> Case:
    return Case("nt_xent", rows, rows, d, 2, dtype, **options)


def _pairs(loss: str, rows: int, d: int, dtype: torch.dtype = torch.float32) -> Case:
    units = {"clip": 4, "siglip": 3, "info_nce": 3, "sup_con": 2}[loss]
    return Case(loss, rows, rows, d, units, dtype)


SUITES: dict[str, tuple[Case | Update | Noise | Assignment | Prediction | BankUpdate, ...]] = {
    "quick": (_nt_xent(128, 128), _nt_xent(512, 128), _nt_xent(2048, 128)),
    "cpu": (
        _nt_xent(128, 128),  # 64 pairs: where overheads rule
        _nt_xent(512, 128),
        _nt_xent(2048, 128),
        _nt_xent(8192, 128),
        _nt_xent(8192, 512, bfloat16=True),  # where products rule
        _pairs("sup_con", 4096, 128),
        _pairs("clip", 4096, 512),
        _pairs("siglip", 4096, 512),
        _pairs("info_nce", 4096, 512),
        Case("moco", 256, 65536, 128, 2),
        Case("moco_push", 256, 65536, 128, 2),
        Update("ResNet-50"),
        Noise(256, 4096, 128, 50000),  # InstDisc, with CIFAR's 50,000 images
        Assignment(3072, 3000),  # SwAV: its prototypes, and twelve batches of 256
        Prediction(512, 3000),
        BankUpdate(256, 50000, 128),  # a few rows: overheads alone
    ),
    "gpu": (
        _nt_xent(8192, 128, BF16),
        _nt_xent(32768, 128, BF16),
        _pairs("sup_con", 32768, 128, BF16),
        _pairs("clip", 32768, 512, BF16),
        _pairs("clip", 65536, 512, BF16),
        _pairs("clip", 65536, 768, BF16),
        _pairs("siglip", 65536, 768, BF16),
        Case("moco", 256, 65536, 128, 2, BF16),
        Case("moco_push", 256, 65536, 128, 2, BF16),
        Case("moco", 4096, 65536, 256, 2, BF16),
        _pairs("info_nce", 65536, 512, BF16),
        Update("ResNet-50"),
        Update("ResNet-50", BF16),
        Update("ViT-L"),
        Update("ViT-L", BF16),
        Noise(256, 4096, 128, 1281167),  # InstDisc, with ImageNet's images
        Assignment(3072, 3000),
        Prediction(4096, 3000),  # the batch of its paper
        BankUpdate(256, 1281167, 128),
        Case("info_nce", 2**20, 2**20, 512, 3, BF16, alone=True),  # last: where time ends, left out
    ),
    # What a GPU is asked first, the most important before the others.
    "flagships": (
        _nt_xent(32768, 128, BF16),
        _pairs("clip", 32768, 512, BF16),
        Case("moco", 256, 65536, 128, 2, BF16),
        Case("moco_push", 256, 65536, 128, 2, BF16),
        _nt_xent(8192, 128, BF16),
        _pairs("siglip", 32768, 768, BF16),
        Update("ViT-L"),
        Update("ResNet-50", BF16),
    ),
    # 64 rows are 32 pairs; plain PyTorch would hold 52 GB at the last size.
    "scaling": (
        *(_nt_xent(2**k, 128) for k in range(6, 17)),
        *(_pairs("clip", 2**k, 512) for k in range(6, 15)),
    ),
}
