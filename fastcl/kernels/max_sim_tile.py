"""Late interaction in Triton: the scores of queries and documents, and what the best tokens owe.

    S_ij = sum_t max_u <q_it, k_ju>,   dq_it = sum_j G_ij k_ju,   dk_ju = sum of G_ij q_it over the
    it whose best is u
Khattab and Zaharia 2020, equation 3. Bytes: the tokens of a document once per group of queries, 4
per token and document for which was the best, rows of documents again where they were it.
The idea: a tile of products is reduced to a maximum per row in registers; of the gradient of the
tokens of a document, whole programs add in one order: a product with a matrix of ones and zeros,
which is exact, and no atomics.
"""

import triton
import triton.language as tl

from .contrast_tile import other_share, scale_factor, softplus


@triton.jit
def row_tokens(mask, row, inside):
    """Whether rows are tokens that are there."""
    if mask is not None:
        inside = (tl.load(mask + row, mask=inside, other=0) != 0) & inside
    return inside


@triton.jit
def load_rows(x, row, inside, depth, d, DEPTH: tl.constexpr):
    """Rows of x [*, d], features depth.., zero where they are not inside."""
    j = depth + tl.arange(0, DEPTH)
    at = x + row.to(tl.int64)[:, None] * d + j[None, :]
    return tl.load(at, mask=inside[:, None] & (j < d)[None, :], other=0.0)


@triton.jit(do_not_specialize=["first", "count", "column"])
def best_kernel(
    q,  # [n Lq, d]
    k,  # [items Ld, d]
    q_mask,  # [n Lq] or None
    k_mask,  # [items Ld] or None
    q_factor,  # [n Lq] float32 that products are multiplied with, or None
    k_factor,  # [items Ld], or None
    scores,  # [count, columns] float32 out
    places,  # [columns, count Lq] int32 out
    first,  # query of the chunk
    count,  # queries of the chunk
    column,  # of the first document
    columns,
    lq,
    ld,
    d,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DEPTH: tl.constexpr,
    WHOLE: tl.constexpr,  # d is no more than DEPTH: tokens of queries are loaded once
    PLACES: tl.constexpr,  # tokens of a query in a tile; BM / PLACES queries
    OWN: tl.constexpr,  # documents are those of one query, which fills the tile
    PRECISION: tl.constexpr,
):
    """The scores of a document for some queries, and which of its tokens were the best."""
    group = tl.program_id(0) * (BM // PLACES)
    number = tl.program_id(1)
    item = number.to(tl.int64)
    if OWN:
        item += (first + group).to(tl.int64) * tl.num_programs(1)
    r = tl.arange(0, BM)
    query = group + r // PLACES
    total = tl.zeros([BM // PLACES], tl.float32)
    tokens = tl.zeros([BM // PLACES], tl.int32)
    some = tl.zeros([BN], tl.int32)
    for start in range(0, lq, PLACES):
        t = start + r % PLACES
        row = (first + query) * lq + t
        inside = row_tokens(q_mask, row, (query < count) & (t < lq))
        if WHOLE:
            q_rows = load_rows(q, row, inside, 0, d, DEPTH)
        if q_factor is not None:
            q_length = tl.load(q_factor + row, mask=inside, other=0.0)
        best = tl.full([BM], float("-inf"), tl.float32)
        place = tl.zeros([BM], tl.int32)
        poisoned = tl.zeros([BM], tl.int32)
        for col in range(0, ld, BN):
            u = col + tl.arange(0, BN)
            there = row_tokens(k_mask, item * ld + u, u < ld)
            acc = tl.zeros([BM, BN], tl.float32)
            if WHOLE:
                k_tile = load_rows(k, item * ld + u, there, 0, d, DEPTH)
                acc = tl.dot(q_rows, tl.trans(k_tile), acc, input_precision=PRECISION)
            else:
                for depth in range(0, d, DEPTH):
                    q_tile = load_rows(q, row, inside, depth, d, DEPTH)
                    k_tile = load_rows(k, item * ld + u, there, depth, d, DEPTH)
                    acc = tl.dot(q_tile, tl.trans(k_tile), acc, input_precision=PRECISION)
            if q_factor is not None:
                k_length = tl.load(k_factor + item * ld + u, mask=there, other=0.0)
                acc = acc * (q_length[:, None] * k_length[None, :])
            acc = tl.where(there[None, :], acc, float("-inf"))
            top = tl.max(acc, 1)
            at = tl.min(tl.where(acc == top[:, None], u[None, :], ld), 1)  # the first of equals
            place = tl.where(top > best, at, place)
            best = tl.maximum(best, top)
            poisoned += tl.max((acc != acc).to(tl.int32), 1)  # a maximum passes over a NaN
            some += there.to(tl.int32)
        value = tl.where(poisoned > 0, float("nan"), best)
        value = tl.where(inside, value, 0.0)
        total += tl.sum(tl.reshape(value, [BM // PLACES, PLACES]), 1)
        tokens += tl.sum(tl.reshape(inside.to(tl.int32), [BM // PLACES, PLACES]), 1)
        kept = (query < count) & (t < lq)
        to = places + (column + number).to(tl.int64) * count * lq + query * lq + t
        tl.store(to, place, mask=kept)
    found = (tokens > 0) & (tl.max(some, 0) > 0)
    total = tl.where(found, total, float("nan"))
    g = group + tl.arange(0, BM // PLACES)
    tl.store(scores + g.to(tl.int64) * columns + column + number, total, mask=g < count)


@triton.jit(do_not_specialize=["first", "n"])
def weigh_kernel(
    scores,  # [count, columns]
    scale: tl.float64,
    logit_scale,  # [] or None
    losses,  # [n] out
    slopes,  # [n] out
    weights,  # [count, columns] out
    first,
    n,
    columns,
    BLOCK: tl.constexpr,
):
    """The loss of a query, its derivative to the logarithm of the scale, and the gradient of its
    scores: all relative to the score of its own document."""
    query = tl.program_id(0)
    i = first + query
    scale = scale_factor(scale, logit_scale)
    begin = query.to(tl.int64) * columns
    own = tl.load(scores + begin + i)
    own = tl.where(own == float("inf"), float("nan"), own)  # no finite loss comes of it
    most = tl.full([], float("-inf"), tl.float64)
    for start in range(0, columns, BLOCK):
        away = _away(scores + begin, own, i, start, columns, scale, BLOCK)
        most = tl.maximum(most, tl.max(away, 0))
    most = tl.where(most == float("-inf"), 0.0, most)
    total = tl.zeros([], tl.float64)
    for start in range(0, columns, BLOCK):
        away = _away(scores + begin, own, i, start, columns, scale, BLOCK)
        total += tl.sum(tl.exp(away - most), 0)
    loss = softplus(most + tl.log(total))
    slope = tl.zeros([], tl.float64)
    for start in range(0, columns, BLOCK):
        j = start + tl.arange(0, BLOCK)
        away = _away(scores + begin, own, i, start, columns, scale, BLOCK)
        p = tl.exp(away - loss)
        slope += tl.sum(tl.where(p == 0, 0.0, p * away), 0)
        p = tl.where(j == i, other_share(loss), p) * (scale / n)
        tl.store(weights + begin + j, p.to(tl.float32), mask=j < columns)
    tl.store(losses + i, loss.to(tl.float32))
    tl.store(slopes + i, slope.to(tl.float32))


@triton.jit
def _away(scores, own, i, start, columns, scale, BLOCK: tl.constexpr):
    """Logits of the other documents above the own one; that is -inf itself."""
    j = start + tl.arange(0, BLOCK)
    s = tl.load(scores + j, mask=(j < columns) & (j != i), other=float("-inf"))
    return (s - own).to(tl.float64) * scale


@triton.jit
def _weighed(x, factor, row, inside, weight, d, WIDTH: tl.constexpr):
    """Rows times their factors and a weight, float32."""
    tile = load_rows(x, row, inside, tl.program_id(2) * WIDTH, d, WIDTH).to(tl.float32)
    if factor is not None:
        tile = tile * tl.load(factor + row, mask=inside, other=0.0)[:, None]
    return tile * weight


@triton.jit(do_not_specialize=["first"])
def to_query_kernel(
    k,  # [documents Ld, d]
    hard,  # [n h Lh, d] or None
    k_factor,  # [documents Ld] or None
    hard_factor,  # [n h Lh] or None
    q_mask,  # [n Lq] or None
    places,  # [columns, count Lq]
    weights,  # [count, columns]
    dq,  # [n Lq, d] float32 out
    first,
    columns,
    documents,
    lq,
    ld,
    lh,
    d,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The gradient of some tokens of a query: the best tokens of all its documents, weighed."""
    query = tl.program_id(0)
    t = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    row = (first + query) * lq + t
    inside = row_tokens(q_mask, row, t < lq)
    stride = tl.num_programs(0).to(tl.int64) * lq
    acc = tl.zeros([ROWS, WIDTH], tl.float32)
    for column in range(0, documents):
        weight = tl.load(weights + query.to(tl.int64) * columns + column)
        if weight != 0:  # nearly all are at a low temperature
            at = places + tl.cast(column, tl.int64) * stride + query * lq + t
            source = tl.cast(column, tl.int64) * ld + tl.load(at, mask=inside, other=0)
            acc += _weighed(k, k_factor, source, inside, weight, d, WIDTH)
    if hard is not None:
        own = (first + query).to(tl.int64) * (columns - documents)
        for column in range(documents, columns):
            weight = tl.load(weights + query.to(tl.int64) * columns + column)
            at = places + tl.cast(column, tl.int64) * stride + query * lq + t
            source = (own + column - documents) * lh + tl.load(at, mask=inside, other=0)
            acc += _weighed(hard, hard_factor, source, inside, weight, d, WIDTH)
    mask = (t < lq)[:, None] & (j < d)[None, :]
    tl.store(dq + row.to(tl.int64)[:, None] * d + j[None, :], acc, mask=mask)


@triton.jit(do_not_specialize=["first", "count", "column"])
def to_document_kernel(
    q,  # [n Lq, d]
    q_mask,  # [n Lq] or None
    q_factor,  # [n Lq] or None
    places,  # [columns, count Lq]
    weights,  # [count, columns]
    dk,  # [items Ld, d] float32, added to but by the first chunk
    first,
    count,
    column,  # of the first document
    columns,
    lq,
    ld,
    d,
    BM: tl.constexpr,  # tokens of a document
    BN: tl.constexpr,  # tokens of queries in a step
    DEPTH: tl.constexpr,  # features
    OWN: tl.constexpr,  # documents are those of one query
    PRECISION: tl.constexpr,
):
    """The gradient of some tokens of a document: the tokens of queries that they were best for."""
    number = tl.program_id(0)
    item = number.to(tl.int64)
    begin, end, start_query = 0, count * lq, 0
    if OWN:
        start_query = number // (columns - column)
        item += first.to(tl.int64) * (columns - column)
        begin, end = start_query * lq, (start_query + 1) * lq
        number = number % (columns - column)
    u = tl.program_id(1) * BM + tl.arange(0, BM)
    j = tl.program_id(2) * DEPTH + tl.arange(0, DEPTH)
    to = dk + (item * ld + u)[:, None] * d + j[None, :]
    mask = (u < ld)[:, None] & (j < d)[None, :]
    acc = tl.zeros([BM, DEPTH], tl.float32)
    if not OWN:  # noqa: SIM102  what is constant decides alone whether the rest is compiled
        if first > 0:
            acc = tl.load(to, mask=mask, other=0.0)
    for start in range(begin, end, BN):
        r = start + tl.arange(0, BN)
        row = first * lq + r
        inside = row_tokens(q_mask, row, r < end)
        place = tl.load(
            places + (column + number).to(tl.int64) * count * lq + r, mask=inside, other=-1
        )
        at = weights + (r // lq).to(tl.int64) * columns + column + number
        weight = tl.load(at, mask=inside, other=0.0)
        if q_factor is not None:
            weight *= tl.load(q_factor + row, mask=inside, other=0.0)
        which = tl.where(u[:, None] == place[None, :], weight[None, :], 0.0)
        q_tile = load_rows(q, row, inside, tl.program_id(2) * DEPTH, d, DEPTH)
        acc = tl.dot(which.to(q_tile.dtype), q_tile, acc, input_precision=PRECISION)
    tl.store(to, acc, mask=mask)
