"""The losses on gloo ranks equal one process: under DDP, in groups, in low precision, bad input."""

import contextlib
import copy

import pytest
import torch
import torch.distributed as dist
from distributed_cases import LOSSES, WIDTH, assert_exact, batch, extras, of_rank, scalars, single
from gloo import spawn
from torch.nn.parallel import DistributedDataParallel

import fastcl.functional as F
from fastcl import distributed as D
from fastcl.queue import Queue

COUNTS = {2: [1, 4], 3: [2, 1, 3], 4: [1, 3, 2, 2]}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
EPS = 2**-8  # bfloat16


class Towers(torch.nn.Module):
    """One linear encoder for all rows, and the scale and bias of the loss as parameters."""

    def __init__(self, loss):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(WIDTH, WIDTH, dtype=torch.float64, generator=generator)
        self.weight = torch.nn.Parameter(weight)
        self.scalars = torch.nn.ParameterDict({k: x.detach() for k, x in scalars(loss).items()})

    def forward(self, rows):
        encoded = {k: x @ self.weight if x.is_floating_point() else x for k, x in rows.items()}
        return {**encoded, **self.scalars}


def _arguments(loss):
    return {**loss.kwargs, **extras(loss)}


def _single_gradients(loss, model, batches):
    """One process, the gradient of the summed losses of some global batches."""
    model.zero_grad()
    for parts in batches:
        rows = {k: torch.cat(x) for k, x in parts.items()}
        getattr(F, loss.name)(**model(rows), **_arguments(loss)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def _check_ddp(loss, counts, mode):
    """One step, then one of two accumulated batches."""
    rank, extra = dist.get_rank(), {"mode": mode} if mode else {}
    model, first, second = Towers(loss), batch(loss, counts, 1), batch(loss, counts[::-1], 2)
    twin = DistributedDataParallel(copy.deepcopy(model))
    for batches in ([first], [first, second]):
        want = _single_gradients(loss, model, batches)
        twin.zero_grad()
        for i, parts in enumerate(batches):
            last = i == len(batches) - 1
            with contextlib.nullcontext() if last else twin.no_sync():
                rows = {k: x[rank] for k, x in parts.items()}
                getattr(D, loss.name)(**twin(rows), **_arguments(loss), **extra).backward()
        for name, p in twin.module.named_parameters():
            torch.testing.assert_close(p.grad, want[name], **CLOSE, msg=f"{loss.title} {name}")


def _all_losses(rank, world):
    for loss in LOSSES:
        for mode in loss.modes:
            _check_ddp(loss, COUNTS[world], mode)


@pytest.mark.parametrize("world", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))])
def test_averaged_gradients_equal_one_process(world, tmp_path):
    spawn(_all_losses, world, tmp_path, world)


def _equal_counts(rank):
    """Without exchanging the counts; and a column that is NaN is NaN everywhere."""
    for loss in (x for x in LOSSES if x.modes != ("",)):
        for mode in loss.modes:
            parts = batch(loss, [3, 3])
            mine = of_rank(loss, parts, rank, {"mode": mode, "equal": True})
            everyone = [None, None]
            dist.all_gather_object(everyone, mine)
            assert_exact(loss, parts, everyone)
    broken = torch.ones(2, WIDTH)
    broken[0] = torch.nan if rank else 1.0
    for mode in ("gather", "ring"):
        assert D.clip(torch.ones(2, WIDTH), broken, 10.0, mode=mode).isnan()


def _cast(parts, dtype):
    return {k: [x.to(dtype) if x.is_floating_point() else x for x in xs] for k, xs in parts.items()}


def _low_precision(rank):
    """In the rows' own dtype the ring is as exact as one process: twice its error and a little."""
    for loss in (LOSSES[i] for i in (0, 1, 2, 5, 7, 15, 17, 19)):
        low = _cast(batch(loss, [30, 41]), torch.bfloat16)
        value, exact = single(loss, _cast(low, torch.float64))
        one, plain = single(loss, low, torch.float32)
        for mode in loss.modes:
            got, grads = of_rank(loss, low, rank, {"mode": mode}, torch.float32)
            assert got.dtype == torch.float32
            assert (got.double() - value).abs() <= 2 * (one.double() - value).abs() + 4 * EPS * (
                1 + value.abs()
            )
            for name in exact.keys() - loss.scalars.keys():
                g = grads[name].double() / 2
                cut = slice(0, 30) if rank == 0 else slice(30, 71)
                want, bar = exact[name][cut], plain[name][cut].double()
                budget = 2 * (bar - want).abs().max() + 4 * EPS * (1 + want.abs().max())
                assert (g - want).abs().max() <= budget


def _duplicates_of_another_rank(rank):
    """Pairs of one id on two ranks are no negatives of each other; of two ids they are."""
    for mode in ("gather", "ring"):
        for function, more in ((D.info_nce, ()), (D.clip, (5.0,)), (D.nt_xent, ())):
            for ids, alone in ((torch.tensor([7, 7]), True), (torch.tensor([rank, 7]), False)):
                x, y = (torch.randn(2, WIDTH, requires_grad=True) for _ in "xy")
                loss = function(x, y, *more, ids=ids, duplicates="ignore", mode=mode)
                loss.backward()
                assert alone == (loss == 0) == (x.grad == 0).all() == (y.grad == 0).all()
                assert loss.isfinite() and x.grad.isfinite().all() and y.grad.isfinite().all()


def _bad_input(rank):
    """What is wrong on rank 1 is an error on both, which names the argument."""
    good = torch.randn(3, WIDTH)
    bad = {
        "empty": (torch.randn(0, WIDTH), ValueError),
        "rank": (torch.randn(3), ValueError),
        "width": (torch.randn(3, WIDTH + 1), ValueError),
        "dtype": (torch.randn(3, WIDTH).double(), TypeError),
    }
    for rows, error in bad.values():
        rows = rows if rank else good
        for call in (lambda z: D.nt_xent(z, z), lambda z: D.nt_xent(z, z, mode="ring")):
            with pytest.raises(error if rank else (ValueError, TypeError), match="z0"):
                call(rows)
        with pytest.raises((ValueError, TypeError), match="z must|z of"):
            D.sup_con(rows, torch.zeros(rows.shape[0], dtype=torch.int64))
    for call in (D.info_nce, D.nt_xent, lambda x, y, **o: D.siglip(x, y, 1.0, 0.0, **o)):
        with pytest.raises(ValueError, match="ids must be given on every rank or on none"):
            call(good, good, ids=torch.arange(3) if rank else None)
        with pytest.raises((ValueError, TypeError), match="ids|must fit on every rank"):
            call(good, good, ids=torch.arange(2 if rank else 3))
        with pytest.raises(ValueError, match="duplicates must be one of positive, ignore"):
            call(good, good, ids=torch.arange(3), duplicates="drop")
    with pytest.raises(ValueError, match="mode must be one of gather, ring, got 'star'"):
        D.clip(good, good, 10.0, mode="star")
    with pytest.raises(ValueError, match="temperature"):
        D.info_nce(good, good, temperature=0.0)


@pytest.mark.parametrize(
    "check", [_equal_counts, _low_precision, _duplicates_of_another_rank, _bad_input]
)
def test_two_ranks(check, tmp_path):
    spawn(check, 2, tmp_path)


def _subset(rank):
    """Ranks 2 and 0 of three, in that order of the group's own numbers."""
    group = dist.new_group([0, 2])
    if rank == 1:
        for call in (
            lambda: D.clip(torch.ones(2, 2), torch.ones(2, 2), 1.0, group=group),
            lambda: D.gather(torch.ones(2), group=group),
            lambda: D.mean(torch.ones(2), group=group),
        ):
            with pytest.raises(ValueError, match="group must contain this rank, 1"):
                call()
        return
    mine = [0, 2].index(rank)
    queue = Queue(4, 1)
    queue.push(torch.full((2, 1), float(rank)), group=group)
    assert queue.rows.flatten().tolist() == [0.0, 0.0, 2.0, 2.0]
    for loss in LOSSES:
        for mode in loss.modes:
            parts = batch(loss, [2, 3])
            extra = {"group": group, **({"mode": mode} if mode else {})}
            value, grads = of_rank(loss, parts, mine, extra)
            everyone = [None, None]
            dist.all_gather_object(everyone, (value, grads), group=group)
            assert_exact(loss, parts, everyone)


@pytest.mark.slow
def test_a_group_of_some_ranks(tmp_path):
    spawn(_subset, 3, tmp_path)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.title)
def test_one_process_is_the_plain_function(loss):
    parts = batch(loss, [6])
    value, grads = single(loss, parts)
    for mode in loss.modes:
        got, mine = of_rank(loss, parts, 0, {"mode": mode} if mode else {})
        assert torch.equal(got, value) and all(torch.equal(mine[k], grads[k]) for k in grads)
    with pytest.raises(ValueError, match="mode"):
        D.clip(torch.ones(1, 1), torch.ones(1, 1), 1.0, mode="star")
