"""Libraries that run on any device, one adaptor each, in their own environment (peers.txt).

Each gets the rows in the form its documentation asks for (normalised outside where it does not
normalise), runs its own code, and is checked against float64 like the rest.
"""

import torch
import torch.nn.functional as F

from .absent import stand_in_for_torchvision
from .cases import BIAS, MOMENTUM, TEMPERATURE, Case, Function, Update
from .plain import CHUNK
from .variant import Variant


def _lightly(case: Case) -> Function:
    with stand_in_for_torchvision():
        from lightly.loss import NTXentLoss

    if case.loss == "nt_xent":
        loss = NTXentLoss(temperature=TEMPERATURE)
        return lambda z0, z1: loss(z0, z1)
    loss = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(case.m, case.d))

    def function(query, key, queue, pointer):
        loss.memory_bank.bank = queue  # its ring is the case's, so the push is checked too
        loss.memory_bank.bank_ptr = loss.memory_bank.bank_ptr.to(queue.device)
        return loss(query, key)

    return function


def _lightly_momentum(case: Update) -> Function:
    with stand_in_for_torchvision():
        from lightly.models.utils import update_momentum

    def function(target, online):
        update_momentum(*(_network(x) for x in (online, target)), MOMENTUM)

    return function


def _network(parameters: list[torch.Tensor]) -> torch.nn.Module:
    return torch.nn.ParameterList([torch.nn.Parameter(x, False) for x in parameters])


def _open_clip(case: Case) -> Function:
    with stand_in_for_torchvision():
        from open_clip.loss import ClipLoss, SigLipLoss

    clip, siglip = ClipLoss(), SigLipLoss()

    def function(image, text):
        rows = F.normalize(image, dim=1), F.normalize(text, dim=1)
        scale = torch.tensor(1 / TEMPERATURE, device=image.device)
        if case.loss == "clip":
            return clip(*rows, scale)
        return siglip(*rows, scale, torch.tensor(BIAS, device=image.device))

    return function


def _info_nce(case: Case) -> Function:
    from info_nce import InfoNCE

    loss = InfoNCE(temperature=TEMPERATURE)
    if case.loss == "moco":
        return lambda query, key, queue: loss(query, key, queue)
    return lambda query, key: loss(query, key)


def _metric_learning(case: Case) -> Function:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss, SupConLoss

    if case.loss == "sup_con":
        several = SupConLoss(temperature=TEMPERATURE)
        return lambda z, labels: several(z, labels)
    loss = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE))
    return lambda z0, z1: loss(z0, z1)


def _sentence_transformers(case: Case) -> Function:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    options = both if case.loss == "clip" else {}
    loss = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=1 / TEMPERATURE, **options)
    return lambda *views, **named: loss.compute_loss_from_embeddings(
        [*views, *named.values()], None
    )


def _cached(case: Case) -> Function:
    """The part of the cached loss between the two embedding passes, as its class runs it."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(
        torch.nn.Sequential(torch.nn.Identity()), scale=1 / TEMPERATURE, mini_batch_size=CHUNK
    )

    def function(query, key):
        leaves = [x.detach().requires_grad_() for x in (query, key)]
        value = loss.calculate_loss([[x] for x in leaves], with_backward=True)
        # Its hook hands the gradients to the second embedding pass; here the rows are the leaves.
        handed = sum((x * leaf.grad).sum() for x, leaf in zip((query, key), leaves, strict=True))
        return value + (handed - handed.detach())

    return function


def _few_rows(case: Case) -> str:
    """Pairs of pairs: 10 s at 512 rows, 34 GB at 2,048."""
    many = case.loss == "nt_xent" and case.n > 256
    return "time and memory grow with the cube of the rows" if many else ""


def _float32_queue(case: Case) -> str:
    return "its memory bank is float32" if case.dtype != torch.float32 else ""


PEERS = (
    Variant(
        "lightly", ("nt_xent",), _lightly, 8, "lightly", "lightly",
        remark="four products of half the rows each, copied by boolean masks",
    ),
    Variant(
        "lightly", ("moco_push",), _lightly, 6, "lightly", "lightly", outside=_float32_queue,
        remark="copies the memory bank in every step",
    ),
    Variant("lightly", ("momentum",), _lightly_momentum, 0, "lightly", "lightly"),
    Variant(
        "open_clip", ("clip", "siglip"), _open_clip, 7, "open-clip-torch", "open_clip",
    ),
    Variant(
        "info-nce-pytorch", ("info_nce", "moco"), _info_nce, 6, "info-nce-pytorch", "info_nce",
    ),
    Variant(
        "pytorch-metric-learning", ("nt_xent", "sup_con"), _metric_learning, 12,
        "pytorch-metric-learning", "pytorch_metric_learning", outside=_few_rows,
        remark="NT-Xent up to 256 rows: it holds every pair of a positive and a negative pair",
    ),
    Variant(
        "sentence-transformers", ("info_nce", "clip"), _sentence_transformers, 8,
        "sentence-transformers", "sentence_transformers",
        remark="MultipleNegativesRankingLoss without its model",
    ),
    Variant(
        "sentence-transformers cached", ("info_nce",), _cached, 0, "sentence-transformers",
        "sentence_transformers", remark="the loss part of CachedMultipleNegativesRankingLoss, "
        f"mini-batches of {CHUNK:,} instead of its default of 32",
    ),
)  # fmt: skip
