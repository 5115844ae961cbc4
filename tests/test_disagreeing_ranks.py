"""Ranks that disagree: an error on every rank that names the argument, before anything is mixed."""

import functools

import pytest
import torch
from gloo import spawn

import fastcl
from fastcl import distributed as D

WIDTH, ROWS = 4, 3


def _rows(learns=True, dtype=torch.float32):
    return torch.randn(ROWS, WIDTH).to(dtype).requires_grad_(learns)


def _moco(query, key, **options):
    queue = torch.eye(WIDTH)[: options.pop("size", 2)]
    return D.moco(query, key.detach(), queue, **options)


def _sup_con(x, y, **options):
    return D.sup_con(torch.cat([x, y]), torch.arange(ROWS).repeat(2), **options)


def _scaled(function, *more):
    def call(x, y, scale=10.0, **options):
        return function(x, y, scale, *more, **options)

    return call


LOSSES = {
    "info_nce": D.info_nce, "nt_xent": D.nt_xent, "dcl": D.dcl, "flat_nce": D.flat_nce,
    "moco": _moco, "sup_con": _sup_con, "clip": _scaled(D.clip), "siglip": _scaled(D.siglip, -1.0),
}  # fmt: skip
TEMPERED = ("info_nce", "nt_xent", "dcl", "flat_nce", "moco", "sup_con")
NUMBERED = ("info_nce", "nt_xent", "moco", "clip", "siglip")


def _refused(match, loss, *inputs, **options):
    """Not by a broken connection, which is a RuntimeError."""
    with pytest.raises((ValueError, TypeError), match=match):
        loss(*inputs, **options).backward()


def _options(rank):
    for name, loss in LOSSES.items():
        _refused("normalize must be the same", loss, _rows(), _rows(), normalize=rank == 0)
        if name in TEMPERED:
            _refused("temperature must be", loss, _rows(), _rows(), temperature=0.1 + rank)
            bad = 0.0 if rank else 0.1
            _refused("temperature|rank 1 has", loss, _rows(), _rows(), temperature=bad)
        else:
            _refused("logit_scale must be the same", loss, _rows(), _rows(), 10.0 + rank)
        if name in NUMBERED:
            ids = {"ids": torch.arange(ROWS), "duplicates": ("positive", "ignore")[rank]}
            ids |= {"queue_ids": torch.arange(2)} if name == "moco" else {}
            _refused("duplicates must be the same", loss, _rows(), _rows(), **ids)
        if name != "moco":
            for modes in (("gather", "ring"), ("gather", "star")):
                _refused("mode must|rank 1 has", loss, _rows(), _rows(), mode=modes[rank])
        dtype = torch.float64 if rank else torch.float32
        _refused("same dtype on every rank", loss, _rows(dtype=dtype), _rows(dtype=dtype))
        call = D.sup_con if name == "sup_con" else loss
        more = torch.arange(ROWS) if name == "sup_con" else _rows()
        _refused("must be a tensor|rank 1 has", call, "rows" if rank else _rows(), more)


def _frozen(rank):
    """One rank's input learns and the other's does not: the backward would wait for ever."""
    for name, loss in LOSSES.items():
        first = {"moco": "query", "sup_con": "z"}.get(name, "")
        match = f"{first}.* must require a gradient on every rank or on none"
        for learns in ((rank == 0, False), (rank == 0, rank == 0)):
            _refused(match, loss, *(_rows(x) for x in learns))
    scale = torch.tensor(3.0).requires_grad_(rank == 0)
    for name in ("clip", "siglip"):
        _refused("logit_scale must require", LOSSES[name], _rows(), _rows(), scale)
    with torch.set_grad_enabled(rank == 0):
        _refused("z0 must require", D.nt_xent, _rows(), _rows())


def _others(rank):
    _refused("queue rows must be the same", _moco, _rows(), _rows(), size=2 + rank)
    base = functools.partial(_sup_con, base_temperature=0.1 + rank)
    _refused("base_temperature must be the same", base, _rows(), _rows())
    _refused("logit_bias must be the same", D.siglip, _rows(), _rows(), 2.0, -1.0 - rank)
    # What agrees still works, after all of that; and moco with unequal counts.
    rows = torch.randn(2 + rank, WIDTH, requires_grad=True)
    for equal in (False, True):
        loss = D.moco(rows, rows.detach(), torch.eye(WIDTH), equal=equal)
        loss.backward()
        assert torch.equal(D.gather(loss.detach()[None]), loss.detach().expand(2))
    assert fastcl.distributed.clip(rows, rows, 3).isfinite()


@pytest.mark.parametrize("check", [_options, _frozen, _others])
def test_two_ranks(check, tmp_path):
    spawn(check, 2, tmp_path)
