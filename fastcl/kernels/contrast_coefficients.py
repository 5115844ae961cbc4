"""What every row, or column, contributes to the gradient weights of its logits.

    G_ij = a_i e^{s_ij - lse_i}, and on a positive expm1(-loss_i) where there is one
Bytes: 16 n of statistics read, 24 n of coefficients written.
The idea: all that depends on one row alone is computed once, in float64, so that a tile spends
one exponential, two multiply-adds and a product per logit on both directions together.
"""

import triton
import triton.language as tl

from .contrast_tile import LOG2E, gradient_shift, load_lse, other_share, scale_factor

# Rows of the coefficients [6, n].
LSE = tl.constexpr(0)  # whole part of log2 of the sum of exponentials
NEGATIVE = tl.constexpr(1)  # a, with the fraction of the sum in it
POSITIVE = tl.constexpr(2)  # a where p counts on positives, else 0
WEIGHT = tl.constexpr(3)  # added on positives
SHARED_NEGATIVE = tl.constexpr(4)  # a 2^(shift - lse), for exponentials above the shared shift
SHARED_POSITIVE = tl.constexpr(5)
COEFFICIENTS = 6


@triton.jit(do_not_specialize=["n"])
def coefficients_kernel(
    grad_loss,  # [n] or None
    grad_positive,  # [n] or None
    stats,  # [4, n] from the forward
    scale: tl.float64,
    logit_scale,  # [] or None
    lift,  # [] keeps float16 weights normal, or None
    out,  # [6, n]: see the constants below
    wide,  # [] int32, set where shared factors would leave float32; None: not asked
    n,
    BLOCK: tl.constexpr,
    POSITIVES_IN: tl.constexpr,
    EXTRA: tl.constexpr,
):
    """What a row contributes to the weights of its logits."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    total = scale_factor(scale, logit_scale)
    loss = tl.load(stats + i, mask=inside, other=0.0).to(tl.float64)
    lse = load_lse(stats, i, n, inside) * LOG2E
    # Whole numbers subtract without rounding; the fraction goes into the factors, with what float32
    # does not hold of a whole number above 2^24.
    whole = tl.floor(lse).to(tl.float32)
    rest = tl.where(whole.to(tl.float64) == lse, 0.0, whole.to(tl.float64) - lse)
    fraction = tl.exp2(rest).to(tl.float32)
    count = tl.load(stats + 3 * n + i, mask=inside, other=0.0)
    a = tl.zeros([BLOCK], tl.float32)
    weight = tl.zeros([BLOCK], tl.float32)
    share = 1.0 / tl.maximum(count, 1.0)
    unit = (total if lift is None else total * tl.load(lift)).to(tl.float32)
    if grad_positive is not None:
        weight += tl.load(grad_positive + i, mask=inside, other=0.0) * unit * share
    if grad_loss is not None:
        a = tl.load(grad_loss + i, mask=inside, other=0.0) * unit
        pull = -share
        if POSITIVES_IN:  # p - 1 without cancellation
            pull = tl.where(count == 1.0, other_share(loss).to(tl.float32), pull)
        weight += a * pull
    a = a * fraction
    several = tl.where(count > 1.0, a, 0.0) if POSITIVES_IN else tl.zeros_like(a)
    if EXTRA:
        weight, several = tl.zeros_like(a), tl.zeros_like(a)
    # Without anything in the sum there is nothing to shift.
    away = tl.where(whole == float("-inf"), 0.0, gradient_shift(total) - whole)
    unshifted = tl.exp2(away)
    tl.store(out + LSE * n + i, whole, mask=inside)
    tl.store(out + NEGATIVE * n + i, a, mask=inside)
    tl.store(out + POSITIVE * n + i, several, mask=inside)
    tl.store(out + WEIGHT * n + i, weight, mask=inside)
    tl.store(out + SHARED_NEGATIVE * n + i, a * unshifted, mask=inside)
    tl.store(out + SHARED_POSITIVE * n + i, several * unshifted, mask=inside)
    if wide is not None:
        far = inside & (tl.abs(away) > 100.0)
        if tl.max(far.to(tl.int32), 0) != 0:
            tl.store(wide, 1)  # every program that stores, stores the same
