"""The variants that are timed beside each other: fastcl, plain PyTorch, and other libraries.

A peer is imported only when it is asked for, gets the rows in the form its documentation asks for
(normalised outside where it does not normalise), and is checked against float64 like the rest.
"""

import importlib.util

import torch
import torch.nn.functional as F

from .absent import stand_in_for_torchvision
from .cases import PLAIN, TEMPERATURE, Case, Function, fused


def _lightly(case: Case) -> Function:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=TEMPERATURE)
    return lambda z0, z1: loss(z0, z1)


def _open_clip(case: Case) -> Function:
    from open_clip.loss import ClipLoss

    loss = ClipLoss()

    def function(image, text):
        rows = F.normalize(image, dim=1), F.normalize(text, dim=1)
        return loss(*rows, torch.tensor(1 / TEMPERATURE, device=image.device))

    return function


def _info_nce(case: Case) -> Function:
    from info_nce import InfoNCE

    loss = InfoNCE(temperature=TEMPERATURE)
    if case.loss == "moco":
        return lambda query, key, queue: loss(query, key, queue)
    return lambda query, key: loss(query, key)


def _metric_learning(case: Case) -> Function:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    loss = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))
    return lambda z0, z1: loss(z0, z1)


# name: (module to look for, losses it has, most rows, adaptor). Above, lightly and open_clip ask
# for more than 16 GB; pytorch-metric-learning grows with the cube of the rows: 10 s at 512.
PEERS = {
    "lightly": ("lightly", ("nt_xent",), 32768, _lightly),
    "open_clip": ("open_clip", ("clip",), 65536, _open_clip),
    "info-nce-pytorch": ("info_nce", ("info_nce", "moco"), 65536, _info_nce),
    "pytorch-metric-learning": ("pytorch_metric_learning", ("nt_xent",), 128, _metric_learning),
}


def variants(case: Case, peers: bool) -> dict[str, Function]:
    """Every variant that can run the case, by name; fastcl comes first."""
    plain = PLAIN[case.loss]
    found = {
        "fastcl": fused(case.loss),
        "plain": plain,
        "compiled": torch.compile(plain, dynamic=False),
    }
    if peers:
        stand_in_for_torchvision()
    for name, (module, losses, largest, adaptor) in PEERS.items():
        known = peers and importlib.util.find_spec(module) is not None
        if known and case.loss in losses and case.n <= largest:
            found[name] = adaptor(case)
    return found
