"""What the launchers of both directions share: the problem, its operands and its buffers."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from . import contrast_config as config
from .contrast_limit import NO_LIMITS, Limits
from .contrast_tile import id_range_kernel

BLOCK = 128  # entries of a vector one program handles
PARTS = 16  # partial sums it loads at once


class Operands(NamedTuple):
    """The rows, the columns and what their logits are made of."""

    q: Tensor  # [n, d]
    k: Tensor  # [m, d]
    row_ids: Tensor | None  # [n]
    col_ids: Tensor | None  # [m]
    scale: float
    logit_scale: Tensor | None  # []
    symmetric: bool
    limits: Limits | None
    turned: bool  # limits are those of the columns
    plan: config.Plan
    found: dict  # ranges of ids that are known, by the ids and the tile

    def exchanged(self) -> "Operands":
        """Columns as rows."""
        ids = {"row_ids": self.col_ids, "col_ids": self.row_ids}
        return self._replace(q=self.k, k=self.q, turned=not self.turned, **ids)

    def rows(self, some: slice) -> "Operands":
        """Some of the rows against all columns, from a multiple of every tile on."""
        limits = None if self.limits is None else self.limits.rows(some)
        part = self._replace(q=self.q[some], limits=limits)
        if self.row_ids is None:
            return part
        ids = self.row_ids[some]
        for block in {self.plan.sums.rows, config.POSITIVES.rows}:
            ranges = self._range(self.row_ids, block)
            self.found[_key(ids, block)] = ranges[some.start // block :]
        return part._replace(row_ids=ids)

    def ranges(self, rows: int, columns: int) -> tuple[Tensor | None, Tensor | None]:
        """Lowest and highest id of every tile of rows and of columns."""
        if self.row_ids is None:
            return None, None
        return self._range(self.row_ids, rows), self._range(self.col_ids, columns)

    def _range(self, ids: Tensor, block: int) -> Tensor:
        key = _key(ids, block)
        if key not in self.found:
            self.found[key] = id_ranges(ids, block)
        return self.found[key]

    def of(self, tile: config.Tile, depth: int) -> tuple:
        """q and k as a kernel of this tile takes them, with the scale and the ids."""
        q = config.descriptor(self.q, tile.rows, depth, self.plan.bulk)
        k = config.descriptor(self.k, tile.columns, depth, self.plan.bulk)
        ids = self.row_ids, self.col_ids, *self.ranges(tile.rows, tile.columns)
        return q, k, self.scale, self.logit_scale, *ids

    def pointers(self, tile: config.Tile) -> tuple:
        """Operands of a kernel that loads few tiles, without descriptors."""
        return self._replace(plan=self.plan._replace(bulk=False)).of(tile, tile.depth)

    def held(self, tile: config.Tile) -> tuple[tuple, tuple]:
        """Limits and guide as a kernel of this tile takes them, and what it is compiled for."""
        return NO_LIMITS if self.limits is None else self.limits.of(tile, self.plan.bulk)

    @property
    def side_limits(self) -> tuple[Tensor | None, Tensor | None]:
        """Of the rows and of the columns, where no guide judges."""
        limit = None if self.limits is None else self.limits.limit
        return (None, limit) if self.turned else (limit, None)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.q.shape[0], self.k.shape[0], self.q.shape[1]


def _key(ids: Tensor, block: int) -> tuple[int, ...]:
    return ids.untyped_storage()._cdata, ids.storage_offset(), len(ids), block


def operands(q, k, row_ids, col_ids, scale, logit_scale, symmetric, limits=None) -> Operands:
    q = q.contiguous()
    k = q if symmetric else k.contiguous()
    if row_ids is not None:
        row_ids, col_ids = row_ids.contiguous(), col_ids.contiguous()
    plan = config.plan(q, k)
    if limits is not None and limits.guide_q is not None:
        plan = config.guided(plan, q, limits.guide_q)
    return Operands(
        q, k, row_ids, col_ids, scale, logit_scale, symmetric, limits, False, plan, {}
    )  # fmt: skip


def options(tile: config.Tile) -> dict:
    return {"num_warps": tile.warps, "num_stages": tile.stages, "enable_fp_fusion": True}


def id_ranges(ids: Tensor, block: int) -> Tensor:
    tiles = triton.cdiv(ids.shape[0], block)
    out = ids.new_empty(tiles, 2)
    id_range_kernel[(tiles,)](ids, out, ids.shape[0], block)
    return out


def empty(like: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)
