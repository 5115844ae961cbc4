"""solo-learn: its contrastive loss functions, Sinkhorn and momentum.

Mimics version 1.0.8, the last on GitHub. Version 1.0.2, the last on PyPI, has another signature of
simclr_loss_func, which is simclr_two_views_loss_func here, and calls mocov2plus_loss_func
moco_loss_func.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check, distributed
from ..contrast.node import mean_loss
from ..contrast.problem import problem
from ..functional import row_products, unit_rows
from ..functional.pairs import log_sum_by_row, matching_pairs, pair_products
from ..functional.swav import predicted
from ..functional.vicreg import vicreg
from ..momentum import momentum_update_
from ..reference import no_autocast
from ._common import in_dtype_of, is_one, log_sum, signed_inverse, times
from ._lightly_swav import cross_entropy, sinkhorn
from ._solo_dino import DINOLoss
from .info_nce import info_nce

__all__ = [
    "DINOLoss",
    "MomentumUpdater",
    "SinkhornKnopp",
    "byol_loss_func",
    "moco_loss_func",
    "mocov2plus_loss_func",
    "mocov3_loss_func",
    "nnclr_loss_func",
    "ressl_loss_func",
    "simclr_loss_func",
    "simclr_two_views_loss_func",
    "simsiam_loss_func",
    "swav_loss_func",
    "vicreg_loss_func",
]


def simclr_loss_func(
    z: Tensor,  # [n, d]
    indexes: Tensor,  # [n] int64
    temperature: float = 0.1,
) -> Tensor:
    """Minus the log of the share of the positives, rows of the same index, in the sum over all
    other rows; the mean over rows. Rows of all ranks are gathered with gradients."""
    q = unit_rows(z)
    columns = distributed.gather_with_gradient(q, equal=True)
    col_ids = distributed.gather(indexes, equal=True)
    a, p = matching_pairs(indexes, col_ids)
    other = p != a + distributed.rank() * q.shape[0]
    a, p = a[other], p[other]
    positives = log_sum_by_row(pair_products(q, columns, a, p) / temperature, a, q.shape[0])
    sign, scale = signed_inverse(temperature, q.device)
    negatives = log_sum(times(sign, q), columns, scale, (indexes, col_ids))
    return in_dtype_of(z, -F.logsigmoid(positives - negatives).mean())


def simclr_two_views_loss_func(
    z1: Tensor,  # [n, d]
    z2: Tensor,  # [n, d]
    temperature: float = 0.1,
    extra_pos_mask: Tensor | None = None,  # [2n, 2n] bool
) -> Tensor:
    """NT-Xent of two views, with more positives where a mask marks them (simclr_loss_func of
    version 1.0.2)."""
    n = z1.shape[0]
    sign, scale = signed_inverse(temperature, z1.device)
    if extra_pos_mask is None and is_one(sign):
        ids = torch.arange(n, device=z1.device).repeat(2)
        return in_dtype_of(z1, mean_loss(problem((z1, z2), scale=scale, ids=ids))[0])
    z = unit_rows(z1, z2)
    own = torch.arange(2 * n, device=z.device)
    lse = log_sum(z, None, scale) if is_one(sign) else log_sum(times(sign, z), z, scale, own)
    exact = z.to(lse.dtype)
    if extra_pos_mask is None:
        positive = row_products(exact, exact.roll(n, 0)) / temperature
    else:
        mask = extra_pos_mask.clone()
        mask[own, own.roll(n)] = True
        weights = mask.to(lse.dtype)
        positive = (exact * (weights @ exact)).sum(1) / temperature / weights.sum(1)
    return in_dtype_of(z1, (lse - positive).mean())


def mocov2plus_loss_func(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    queue: Tensor,  # [d, K]
    temperature: float = 0.1,
) -> Tensor:
    """Every query against its key and the columns of the queue. Nothing is normalised here, and
    query and key receive gradients."""
    _check.tensor("key", key)
    sign, scale = signed_inverse(temperature, query.device)
    rows, columns = times(sign, query), queue.T.to(query.dtype)
    pairs = problem(rows, columns, own=key, scale=scale, unit=False, normalize=False)
    return in_dtype_of(query, mean_loss(pairs)[0])


def moco_loss_func(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    queue: Tensor,  # [d, K]
    temperature: float = 0.1,
) -> Tensor:
    """The name of `mocov2plus_loss_func` in version 1.0.2."""
    return mocov2plus_loss_func(query, key, queue, temperature)


def mocov3_loss_func(
    query: Tensor,  # [n, d]
    key: Tensor,  # [n, d]
    temperature: float = 0.2,
) -> Tensor:
    """Every query against the keys of all ranks, times twice the temperature. Across ranks the
    keys receive no gradient; in one process they do unless detached."""
    if distributed.world_size() == 1:
        loss = info_nce(query, key, temperature=temperature)
    else:
        sign, scale = signed_inverse(temperature, query.device)
        q, own = times(sign, unit_rows(query)), unit_rows(key.detach())
        k, first = distributed.gather(own, equal=True), distributed.rank() * q.shape[0]
        columns = torch.arange(k.shape[0], device=k.device)
        ids = columns[first : first + q.shape[0]], columns
        loss, _ = mean_loss(problem(q, k, own=own, scale=scale, ids=ids, normalize=False))
    return in_dtype_of(query, loss * (2 * temperature))


def nnclr_loss_func(
    nn: Tensor,  # [n, d]
    p: Tensor,  # [n, d]
    temperature: float = 0.1,
) -> Tensor:
    """Every nearest neighbour against all predictions of the batch."""
    return info_nce(nn, p, temperature=temperature)


def ressl_loss_func(
    q: Tensor,  # [n, d]
    k: Tensor,  # [n, d]
    queue: Tensor,  # [K, d]
    temperature_q: float = 0.1,
    temperature_k: float = 0.04,
) -> Tensor:
    """The cross-entropy of a query's similarities to the queue under those of its key, the mean
    over queries; keys are constants. Nothing is normalised.

    No n x K matrix is formed: of the key's softmax only the mean of the queue's rows counts.
    """
    sign, scale = signed_inverse(temperature_q, q.device)
    rows = times(sign, q)
    lse = log_sum(rows, queue, scale, unit=False)
    target = _attended(k.detach() / temperature_k, queue).to(lse.dtype)
    return in_dtype_of(q, (lse - scale * row_products(rows, target)).mean())


def vicreg_loss_func(
    z1: Tensor,  # [n, d]
    z2: Tensor,  # [n, d]
    sim_loss_weight: float = 25.0,
    var_loss_weight: float = 25.0,
    cov_loss_weight: float = 1.0,
) -> Tensor:
    """VICReg's distance, hinges and covariances; the hinges are a sum over both views, where
    `functional.vicreg` has their mean."""
    weights = {"invariance": sim_loss_weight, "variance": 2 * var_loss_weight}
    return vicreg(z1, z2, **weights, covariance=cov_loss_weight).to(z1.dtype)


def _attended(q: Tensor, rows: Tensor) -> Tensor:  # [n, d], [K, d] -> [n, d]
    """``(q @ rows.T).softmax(1) @ rows``, the softmax a constant."""
    with no_autocast(q):
        whole = (x[None, None] for x in (q, rows.detach(), rows))
        return F.scaled_dot_product_attention(*whole, scale=1.0)[0, 0]


def byol_loss_func(
    p: Tensor,  # [n, d]
    z: Tensor,  # [n, d]
    simplified: bool = True,
) -> Tensor:
    """Two minus twice the mean cosine with constant z."""
    return 2 + 2 * simsiam_loss_func(p, z, simplified)


def simsiam_loss_func(
    p: Tensor,  # [n, d]
    z: Tensor,  # [n, d]
    simplified: bool = True,
) -> Tensor:
    """Minus the mean cosine with constant z."""
    if simplified:
        return -F.cosine_similarity(p, z.detach(), dim=-1).mean()
    return -(F.normalize(p, dim=-1) * F.normalize(z, dim=-1).detach()).sum(1).mean()


def swav_loss_func(
    preds: list[Tensor],  # [n, m] each
    assignments: list[Tensor],  # [n, m] each
    temperature: float = 0.1,
) -> Tensor:
    """The cross-entropy of every view's predictions with every other view's assignments."""
    targets = [assignments[v] for v in range(len(preds))]
    losses = [
        cross_entropy(preds[v], target, temperature) for v, target in predicted(targets, len(preds))
    ]
    return sum(losses) / (len(preds) * (len(preds) - 1))


class SinkhornKnopp(nn.Module):
    """Assignments of samples to prototypes, over the samples of all ranks.

    Args:
        num_iters: How often both sides are scaled.
        epsilon: Divides the scores.
        world_size: Kept.
    """

    def __init__(self, num_iters: int = 3, epsilon: float = 0.05, world_size: int = 1) -> None:
        super().__init__()
        self.num_iters = num_iters
        self.epsilon = epsilon
        self.world_size = world_size

    def forward(
        self,
        Q: Tensor,  # [n, m]
    ) -> Tensor:
        """`[n, m]`, rows that sum to one."""
        return sinkhorn(Q.detach(), self.num_iters, self.epsilon, gather_distributed=True)


class MomentumUpdater:
    """The momentum update of solo-learn, in place and in one launch, with its cosine schedule."""

    def __init__(self, base_tau: float = 0.996, final_tau: float = 1.0) -> None:
        assert 0 <= base_tau <= 1
        assert 0 <= final_tau <= 1 and base_tau <= final_tau
        self.base_tau = base_tau
        self.cur_tau = base_tau
        self.final_tau = final_tau

    def update(self, online_net: nn.Module, momentum_net: nn.Module) -> None:
        """Move the parameters of momentum_net towards those of online_net."""
        momentum_update_(momentum_net, online_net, self.cur_tau)

    def update_tau(self, cur_step: int, max_steps: int) -> None:
        """Take tau from base_tau to final_tau along a cosine."""
        cosine = (math.cos(math.pi * cur_step / max_steps) + 1) / 2
        self.cur_tau = self.final_tau - (self.final_tau - self.base_tau) * cosine
