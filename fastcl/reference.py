"""Every operator in plain PyTorch, in the words of its paper.

These have the signatures of the raw operators, form whatever matrix is easiest to read, and are
both what the kernels are tested against and what runs where no kernel was built.
Rows are accumulated in float32, or in float64 for float64 rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype an operator accumulates and returns in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _scaled(similarity, scale, logit_scale, dtype):
    if similarity is None:
        return None
    s = scale * similarity.to(dtype)
    return s if logit_scale is None else s * logit_scale.to(dtype)


def _logits(q, k, scale, logit_scale):
    dtype = accumulate_dtype(q.dtype)
    return _scaled(q.to(dtype) @ k.to(dtype).T, scale, logit_scale, dtype)  # [n, m]


def _matches(s, row_ids, col_ids, symmetric):
    """Which columns carry the row's id, and which columns are the row itself: two [n, m] masks."""
    self_ = torch.zeros_like(s, dtype=torch.bool)
    if symmetric:
        self_.fill_diagonal_(True)
    if row_ids is None:
        return torch.zeros_like(self_), self_
    return (row_ids[:, None] == col_ids[None, :]) & ~self_, self_


def _statistics(s, denominator, positives, extra=None):
    """Loss, rest of lse, mean positive logit and number of positives of every row: [4, n].

    Near convergence lse and positive agree to many digits, so the loss is summed relative to the
    positive and is not their difference.
    """
    if extra is None:
        count = positives.sum(1).to(s.dtype)
        positive = torch.where(positives, s, 0).sum(1) / count.clamp(min=1)
    else:
        count, positive = torch.ones_like(extra), extra
    loss = torch.where(denominator, s - positive[:, None], -torch.inf).logsumexp(1)
    if extra is not None:
        loss = F.softplus(loss, threshold=torch.inf)
    return torch.stack([loss, torch.zeros_like(loss), positive, count])


def info_nce_forward(
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]; q itself where symmetric
    scale: float,
    logit_scale: Tensor | None,  # [] multiplies scale
    row_ids: Tensor | None,  # [n] int64; None: no column is a positive
    col_ids: Tensor | None,  # [m] int64
    extra: Tensor | None,  # [n] similarity of a row-aligned positive that is not a column
    pivot: Tensor | None,  # [n] similarity to count the columns above
    symmetric: bool,
    both: bool,
    positives_in: bool,
    unit: bool,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Softmax contrast of rows q against columns k with s_ij = scale * logit_scale * <q_i, k_j>.

    Column j is a positive of row i when their ids are equal. D(i), the denominator, is every
    column but i itself (symmetric), and but the positives where positives_in is False. extra is
    one more positive per row, in D(i); columns with the row's id are then left out.

    Returns:
        rows [4, n]: loss_i = lse_i - mean positive logit, where lse_i is over D(i); what rounding
            took from lse_i = loss_i + positive_i + rest_i, 0 where unknown; the mean positive
            logit (0 without a positive); the number of positives.
        cols [4, m]: the same down the columns where both, else [4, 0].
        rank [n] int64: columns of D(i), positives left out, that score above scale * pivot_i;
            [0] without pivot.
        weighted [n, d]: sum over D(i), positives left out, of p_ij k_j where frozen; else [0, d].

    unit says that all rows have length one at most, which a kernel may use to choose its shift.
    """
    dtype = accumulate_dtype(q.dtype)
    with _no_autocast(q):
        s = _logits(q, k, scale, logit_scale)
        matches, self_ = _matches(s, row_ids, col_ids, symmetric)
        negatives = ~(matches | self_)
        denominator = negatives | matches if positives_in and extra is None else negatives
        rows = _statistics(s, denominator, matches, _scaled(extra, scale, logit_scale, dtype))
        cols = s.new_empty(4, 0)
        if both:
            cols = _statistics(s.T, denominator.T, matches.T)
        rank = torch.empty(0, dtype=torch.int64, device=q.device)
        if pivot is not None:
            bar = _scaled(pivot, scale, logit_scale, dtype)
            rank = (negatives & (s > bar[:, None])).sum(1)
        weighted = s.new_empty(0, q.shape[1])
        if frozen:
            p = torch.where(negatives, (s - rows[:3].sum(0)[:, None]).exp(), 0)
            weighted = p @ k.to(dtype)
    return rows, cols, rank, weighted


def _weights(s, denominator, positives, stats, grad_loss, grad_positive):
    """Gradient of the loss and of the mean positive logit of every row to its logits: [n, m]."""
    loss, rest, positive, count = stats.to(s.dtype)
    y = torch.where(positives, 1 / count.clamp(min=1)[:, None], 0)
    g = torch.zeros_like(s)
    if grad_loss is not None:
        p = torch.where(denominator, (s - positive[:, None] - loss[:, None] - rest[:, None]).exp(), 0)
        g = g + grad_loss.to(s.dtype)[:, None] * (p - y)
    if grad_positive is not None:
        g = g + grad_positive.to(s.dtype)[:, None] * y
    return g


def info_nce_backward(
    grad_loss: Tensor | None,  # [n]
    grad_positive: Tensor | None,  # [n]
    grad_col_loss: Tensor | None,  # [m]
    grad_col_positive: Tensor | None,  # [m]
    q: Tensor,  # [n, d]
    k: Tensor,  # [m, d]
    scale: float,
    logit_scale: Tensor | None,  # []
    row_ids: Tensor | None,  # [n]
    col_ids: Tensor | None,  # [m]
    rows: Tensor,  # [4, n] from the forward
    cols: Tensor,  # [4, m], or [4, 0]
    symmetric: bool,
    positives_in: bool,
    extra: bool,
    unit: bool,
    need_q: bool,
    need_k: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows' and the columns' loss and mean positive logit to q and k.

        dS_ij = grad_loss_i (p_ij - y_ij) + grad_positive_i y_ij + the same down the columns

    with y_ij = 1 / |P(i)| on the positives. Where extra, the positives were no columns: y = 0.

    Returns:
        dq [n, d] and dk [m, d] in the accumulation dtype; [0, d] where not needed; where
        symmetric dq is the whole gradient and dk is [0, d].
    """
    dtype = accumulate_dtype(q.dtype)
    with _no_autocast(q):
        s = _logits(q, k, scale, logit_scale)
        matches, self_ = _matches(s, row_ids, col_ids, symmetric)
        negatives = ~(matches | self_)
        denominator = negatives | matches if positives_in and not extra else negatives
        positives = torch.zeros_like(matches) if extra else matches
        g = _weights(s, denominator, positives, rows, grad_loss, grad_positive)
        if grad_col_loss is not None or grad_col_positive is not None:
            columns = _weights(
                s.T, denominator.T, positives.T, cols, grad_col_loss, grad_col_positive
            )
            g = g + columns.T
        g = g * scale if logit_scale is None else g * scale * logit_scale.to(dtype)
        dq = dk = s.new_empty(0, q.shape[1])
        if symmetric:
            dq = (g + g.T) @ q.to(dtype)
        else:
            if need_q:
                dq = g @ k.to(dtype)
            if need_k:
                dk = g.T @ q.to(dtype)
    return dq, dk


def queue_push_(
    queue: Tensor,  # [K, d]
    pointer: Tensor,  # [] int64: rows pushed so far
    rows: Tensor,  # [b, d]
) -> None:
    """Write rows at pointer modulo K, the last K of them where b > K, and advance pointer by b."""
    size, pushed = queue.shape[0], rows.shape[0]
    kept = min(size, pushed)
    offset = torch.arange(pushed - kept, pushed, device=queue.device)
    queue.index_copy_(0, (pointer + offset) % size, rows[pushed - kept :].to(queue.dtype))
    pointer.add_(pushed)


def momentum_update_(
    target: list[Tensor],
    online: list[Tensor],  # the shapes of target, any floating-point dtypes
    momentum: float,
    momentum_tensor: Tensor | None,  # [] takes the place of momentum
    seed: Tensor | None,  # [] int64 in [0, 2^32): random bits for 16-bit targets, and their state
) -> None:
    """target = momentum * target + (1 - momentum) * online; integer tensors are copied.

    Exact at both ends, where target equals online, and never outside their interval: the
    increment is added to the nearer of the two. Computed in float32, in float64 for a float64
    target. A 16-bit target is rounded up or down at random with the probability that makes the
    rounding right on average (nearest would never move it); seed advances by one.
    """
    for index, (t, o) in enumerate(zip(target, online, strict=True)):
        if not t.is_floating_point():
            t.copy_(o)
            continue
        dtype = accumulate_dtype(t.dtype)
        m = torch.tensor(momentum, dtype=torch.float64, device=t.device)
        m = m if momentum_tensor is None else momentum_tensor.to(torch.float64)
        w = (1 - m).to(dtype)
        m = m.to(dtype)
        old, new = t.to(dtype), o.to(dtype)
        gap = new - old
        mixed = torch.where(w < 0.5, old + w * gap, new - m * gap)
        mixed = torch.where(new == old, old, mixed)
        mixed = torch.where(w == 0, old, torch.where(w == 1, new, mixed))
        if seed is not None and t.dtype in (torch.bfloat16, torch.float16):
            mixed = stochastic_round(mixed, t.dtype, seed, index)
        t.copy_(mixed)
    if seed is not None:
        seed.copy_((seed + 1) & 0xFFFFFFFF)


def stochastic_round(
    x: Tensor,  # float32
    dtype: torch.dtype,  # bfloat16 or float16
    seed: Tensor,  # [] int64
    stream: int,
) -> Tensor:
    """Round to one of the two neighbours of dtype, nearer ones more often: right on average.

    A number that dtype holds is unchanged. Element i of a stream draws the 16-bit half i % 2 of a
    hash of (seed, stream, i // 2), the same bits in every kernel.
    """
    bits = _random_bits(x.numel(), seed, stream).view(x.shape)
    raw = x.contiguous().view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    sign, magnitude = raw & 0x80000000, raw & 0x7FFFFFFF
    if dtype == torch.bfloat16:
        rounded = sign | (magnitude + bits) & 0x7FFF0000
        rounded = rounded.to(torch.int32).view(torch.float32)
    else:
        # 13 random bits below the last place of a normal number, or of 2^-24 below 2^-14. More
        # would be lost in the sum of the second case and round a whole number up.
        bits = bits >> 3
        normal = sign | (magnitude + bits) & 0x7FFFE000
        normal = normal.to(torch.int32).view(torch.float32)
        small = (x.abs() * 2.0**24 + bits * 2.0**-13).floor() * 2.0**-24
        rounded = torch.where(x.abs() < 2.0**-14, torch.copysign(small, x), normal)
    return torch.where(x.isfinite(), rounded, x).to(dtype)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _splitmix(x: Tensor) -> Tensor:
    """64 well-mixed bits of x, the generator of Steele et al. 2014; sums and products wrap."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _signed(0x94D049BB133111EB)
    return x ^ (x >> 31 & (1 << 33) - 1)


def _random_bits(count: int, seed: Tensor, stream: int) -> Tensor:
    """count integers of 16 random bits: a keyed 32-bit hash of i // 2, split in halves."""
    mask = 0xFFFFFFFF
    key = _splitmix((seed & mask) | stream << 32)
    pair = torch.arange((count + 1) // 2, device=seed.device)
    x = (pair + (pair >> 32) * 0x9E3779B9 + key) & mask
    x = ((x ^ x >> 16) * 0x7FEB352D + (key >> 32)) & mask
    x = ((x ^ x >> 15) * 0x846CA68B) & mask
    x = x ^ x >> 16
    return torch.stack([x & 0xFFFF, x >> 16], 1).view(-1)[:count]
