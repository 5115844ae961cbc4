"""Launchers of late interaction: chunks of queries, which leave their share of all gradients.

Bytes: the tokens, float32 gradients, 4 bytes per document and token of a query of one chunk. The
idea: a query's loss is final once it has met all documents, so which tokens were the best is kept
for a chunk of queries alone, and no product is formed twice.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .. import reference
from ..reference.unit_rows import SHORTEST
from . import contrast_common as common
from . import contrast_config as config
from .max_sim_tile import best_kernel, to_document_kernel, to_query_kernel, weigh_kernel
from .unit_rows import project, row_products

# Bytes of what a chunk keeps: enough programs of one to fill a GPU several times. More where the
# tokens take more.
CHUNK = 2**26
BLOCK = 1024  # documents that the weights of a query are formed of at once
WIDEST = 128  # features of a gradient in one program
ROWS = 16  # tokens of a query whose gradient one program forms
STEP = 64  # tokens of queries in a step of the gradient of a document


class Side(NamedTuple):
    """Items of tokens as they go into the products, one below the other."""

    rows: Tensor  # [items length, d]
    lengths: Tensor | None  # [items length] where products divide by them
    factors: Tensor | None  # one over the lengths
    mask: Tensor | None  # [items length] bool
    items: int
    length: int

    def gradient(self, grad: Tensor, shape: torch.Size) -> Tensor:
        """Of the tokens as they came, by that of the rows."""
        if self.lengths is not None and len(grad):
            grad = project(grad, (self.rows,), self.lengths, None)
        if self.mask is not None and len(grad):
            grad.masked_fill_(~self.mask[:, None], 0)  # whatever a token holds that is not there
        return grad.view(-1, *shape[1:])


def _side(x: Tensor, mask: Tensor | None, normalize: bool) -> Side:
    rows = x.contiguous().view(-1, x.shape[-1])
    lengths = row_products(rows, rows).sqrt_() if normalize else None
    factors = None if lengths is None else lengths.clamp(min=SHORTEST).reciprocal_()
    mask = None if mask is None else mask.contiguous().view(-1)
    return Side(rows, lengths, factors, mask, len(rows) // x.shape[-2], x.shape[-2])


def places_of(tile: config.Tile, queries: int, length: int) -> int:
    """Tokens of a query in a tile, the rest of which are other queries': as little idle as can be,
    and then as few steps."""
    found = [1 << i for i in range(tile.rows.bit_length())]

    def idle(places: int) -> int:
        together = tile.rows // places
        return -(-queries // together) * together * -(-length // places) * places

    return min(found, key=lambda places: (idle(places), -places))


class _Chunk(NamedTuple):
    """Queries first .. first + count, and what is kept of them."""

    query: Side
    first: int
    count: int
    scores: Tensor  # [count, columns]
    weights: Tensor  # [count, columns]
    places: Tensor  # [columns, count length] the best token of every document
    plan: config.Plan

    @property
    def columns(self) -> int:
        return self.scores.shape[1]

    def score(self, side: Side, column: int, own: bool) -> None:
        """Of all documents, from a column on; own: of those of each query."""
        q, d = self.query, side.rows.shape[1]
        # The wider tile of rows that do not stay in registers spills where addresses are computed.
        tile = self.plan.sums if config.whole(self.plan.sums, d) else self.plan.weights
        count, places = self.count, places_of(tile, self.count, q.length)
        grid = triton.cdiv(count, tile.rows // places), side.items
        if own:
            places, grid = tile.rows, (count, self.columns - column)
        best_kernel[grid](
            q.rows, side.rows, q.mask, side.mask, q.factors, side.factors, self.scores, self.places,
            self.first, count, column, self.columns, q.length, side.length, d, tile.rows,
            tile.columns, tile.depth, config.whole(tile, d), places, own, self.plan.precision,
            **common.options(tile),
        )  # fmt: skip

    def to_queries(self, document: Side, hard: Side | None, dq: Tensor) -> None:
        q, d = self.query, dq.shape[1]
        width = min(WIDEST, triton.next_power_of_2(d))
        grid = self.count, triton.cdiv(q.length, ROWS), triton.cdiv(d, width)
        others, factors, length = (None, None, 0)
        if hard is not None:
            others, factors, length = hard.rows, hard.factors, hard.length
        to_query_kernel[grid](
            document.rows, others, document.factors, factors, q.mask, self.places, self.weights, dq,
            self.first, self.columns, document.items, q.length, document.length, length, d, ROWS,
            width, num_warps=4,
        )  # fmt: skip

    def to_documents(self, side: Side, column: int, own: bool, dk: Tensor) -> None:
        q, d, tile = self.query, dk.shape[1], self.plan.weights
        width = max(config.LEAST_DEPTH, min(WIDEST, triton.next_power_of_2(d)))
        items = self.count * (self.columns - column) if own else side.items
        rows = min(64, tile.rows)
        grid = items, triton.cdiv(side.length, rows), triton.cdiv(d, width)
        to_document_kernel[grid](
            q.rows, q.mask, q.factors, self.places, self.weights, dk, self.first, self.count,
            column, self.columns, q.length, side.length, d, rows, min(STEP, tile.rows), width, own,
            self.plan.precision, num_warps=4, num_stages=2,
        )  # fmt: skip


def max_sim_mean(
    query, document, hard, query_mask, document_mask, hard_mask, logit_scale, scale: float,
    normalize: bool, need_q: bool, need_d: bool, need_hard: bool, need_scale: bool,
):  # fmt: skip
    """`reference.max_sim_mean` without the tensor of all products."""
    if not config.supported(query):
        return reference.max_sim_mean(
            query, document, hard, query_mask, document_mask, hard_mask, logit_scale, scale,
            normalize, need_q, need_d, need_hard, need_scale,
        )  # fmt: skip
    q, k = _side(query, query_mask, normalize), _side(document, document_mask, normalize)
    h = None if hard is None else _side(hard, hard_mask, normalize)
    n, d = q.items, query.shape[2]
    losses, slopes = common.empty(query, n), common.empty(query, n)
    dq = common.empty(query, len(q.rows) if need_q else 0, d)
    dk = common.empty(query, len(k.rows) if need_d else 0, d)
    dh = common.empty(query, len(h.rows) if h is not None and need_hard else 0, d)
    for chunk in _chunks(q, k, h):
        chunk.score(k, 0, False)
        if h is not None:
            chunk.score(h, k.items, True)
        weigh_kernel[(chunk.count,)](
            chunk.scores, scale, logit_scale, losses, slopes, chunk.weights, chunk.first, n,
            chunk.columns, BLOCK, num_warps=4,
        )  # fmt: skip
        if need_q:
            chunk.to_queries(k, h, dq)
        if need_d:
            chunk.to_documents(k, 0, False, dk)
        if len(dh):
            chunk.to_documents(h, k.items, True, dh)
    d_hard = dh.view(0, 0, 0, d) if h is None else h.gradient(dh, hard.shape)
    slope = slopes.mean().view(1) if need_scale else slopes[:0]
    gradients = q.gradient(dq, query.shape), k.gradient(dk, document.shape), d_hard
    return losses.mean(), *gradients, slope


def _chunks(q: Side, k: Side, h: Side | None):
    """Queries whose best tokens are kept at once."""
    columns = k.items + (0 if h is None else h.items // q.items)
    kept = max(CHUNK, (q.rows.numel() + k.rows.numel()) * q.rows.element_size())
    most = max(1, min(q.items, kept // (columns * (4 * q.length + 8))))
    plan = config.plan(q.rows, k.rows)
    for first in range(0, q.items, most):
        count = min(most, q.items - first)
        scores, weights = (common.empty(q.rows, count, columns) for _ in "12")
        places = common.empty(q.rows, columns, count * q.length, dtype=torch.int32)
        yield _Chunk(q, first, count, scores, weights, places, plan)
