"""gloo ranks against one process: every loss under DDP, groups, queues, bad input, lost ranks."""

import contextlib
import copy

import plain
import pytest
import torch
import torch.distributed as dist
from cases import CASES, run
from distributed_cases import LOSSES, WIDTH, assert_exact, batch, of_rank, scalars, single
from gloo import spawn
from torch.nn.parallel import DistributedDataParallel

import fastcl.functional as F
from fastcl import Bank
from fastcl import distributed as D
from fastcl.queue import Queue, queue_push_

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
    extra = {"queue": torch.eye(WIDTH, dtype=torch.float64)} if loss.name == "moco" else {}
    return {**loss.kwargs, **extra}


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


def _rows(counts, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, WIDTH, dtype=dtype, generator=generator) for n in counts]


def _check_gather(rank):
    for counts in ([3, 3], [1, 4], [5, 0]):
        parts = _rows(counts)
        mine = parts[rank].clone().requires_grad_()
        gathered = D.gather(mine)
        assert torch.equal(gathered, torch.cat(parts)) and not gathered.requires_grad
        weight = torch.cat(_rows(counts)).sin() * (rank + 1)
        (D.gather_with_gradient(mine) * weight).sum().backward()
        torch.testing.assert_close(mine.grad, 3 * parts[rank].sin(), **CLOSE)
    ids = torch.arange(2) + 2 * rank
    assert torch.equal(D.gather(ids, equal=True), torch.arange(4))
    assert D.world_size() == 2 and D.rank() == rank


def _check_any_loss(rank):
    """A loss of the user's on gathered rows, and a loss per row under `mean`."""
    for counts in ([3, 3], [1, 4], [4, 0]):
        parts = _rows(counts)
        weight = torch.eye(WIDTH, dtype=torch.float64).requires_grad_()
        for ours, alone in (
            (lambda z: torch.cdist(*[D.gather_with_gradient(z)] * 2).logsumexp(1).mean(),
             lambda z: torch.cdist(z, z).logsumexp(1).mean()),
            (lambda z: D.mean(z.square().sum(1)), lambda z: z.square().sum(1).mean()),
        ):  # fmt: skip
            (want,) = torch.autograd.grad(alone(torch.cat(parts) @ weight), weight)
            loss = ours(parts[rank] @ weight)
            torch.testing.assert_close(loss, alone(torch.cat(parts) @ weight), **CLOSE)
            (got,) = torch.autograd.grad(loss, weight)
            dist.all_reduce(got)
            torch.testing.assert_close(got / 2, want, **CLOSE)
    # Negative control: the mean of the ranks' means is another where they differ in size.
    mine = _rows([1, 4])[rank].square().sum(1)
    assert abs(D.mean(mine.mean()) - D.mean(mine)) > 1e-3


def _check_equal_counts(rank):
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


def _split(name, x):
    """The rows of two ranks, a third and the rest; None where both hold all of it."""
    if x.dim() == 0 or name in ("queue", "bank", "bank_l", "bank_ab", "noise", "weight"):
        return None
    x = x.transpose(0, 1) if name == "future" else x
    return x.split([len(x) // 3, len(x) - len(x) // 3])


def _gradients_of_case(case, rank, finish):
    """One process, and the average over ranks of what finish makes of this rank's rows."""
    torch.manual_seed(1)
    tensors, kwargs = case.arguments(6, 4, 0.2)
    value, want = run(case.function, tensors, case.constants, kwargs, torch.float64)
    mine, leaves = {}, {}
    for name, x in tensors.items():
        parts = _split(name, x)
        leaf = (x if parts is None else parts[rank]).clone()
        leaves[name] = leaf.requires_grad_(x.is_floating_point() and name not in case.constants)
        mine[name] = leaf if parts is None else finish[0](leaf)
        mine[name] = mine[name].transpose(0, 1) if name == "future" else mine[name]
    loss = finish[1](case.function(**mine, **kwargs), 2 + 2 * rank)
    loss.backward()
    torch.testing.assert_close(loss, value, **CLOSE, msg=case.name)
    for name, expected in want.items():
        parts, got = _split(name, expected), leaves[name].grad
        if parts is None:
            dist.all_reduce(got)
        torch.testing.assert_close(
            got / 2, expected if parts is None else parts[rank], **CLOSE, msg=f"{case.name} {name}"
        )


ROW_BY_ROW = ("moco", "byol", "simsiam", "inst_disc", "nce", "nce_noise", "cmc")


def _check_every_loss(rank):
    """Of the table: on gathered rows; and without gathering where a row meets no other."""
    for case in CASES:
        gather = (D.gather_with_gradient, lambda loss, _: loss)
        _gradients_of_case(case, rank, gather)
        if case.name in ROW_BY_ROW:
            _gradients_of_case(case, rank, (lambda x: x, lambda loss, n: D.mean(loss, rows=n)))


def _check_low_precision(rank):
    """In the rows' own dtype the ring is as exact as one process: twice its error and a little."""
    for loss in LOSSES[2], LOSSES[5], LOSSES[7]:
        parts = batch(loss, [30, 41])
        low = {k: [x.bfloat16() for x in xs] for k, xs in parts.items()}
        value, exact = single(loss, {k: [x.double() for x in xs] for k, xs in low.items()})
        one, plain = single(loss, low, torch.float32)
        for mode in loss.modes:
            got, grads = of_rank(loss, low, rank, {"mode": mode}, torch.float32)
            assert got.dtype == torch.float32
            assert (got.double() - value).abs() <= 2 * (one.double() - value).abs() + 4 * EPS * (
                1 + value.abs()
            )
            for name in parts:
                g = grads[name].double() / 2
                cut = slice(0, 30) if rank == 0 else slice(30, 71)
                want, bar = exact[name][cut], plain[name][cut].double()
                budget = 2 * (bar - want).abs().max() + 4 * EPS * (1 + want.abs().max())
                assert (g - want).abs().max() <= budget


def _check_queue(rank):
    queue, one = Queue(7, WIDTH), Queue(7, WIDTH)
    assert torch.equal(queue.rows, one.rows)
    for counts in ([2, 2], [1, 4], [5, 6]):
        parts = _rows(counts)
        queue.push(parts[rank])
        for part in parts:
            queue_push_(one.rows, one.pointer, part)
    assert torch.equal(queue.rows, one.rows) and int(queue.pointer) == 20
    before = queue.rows.clone()
    with pytest.raises(ValueError, match="width"):
        queue.push(torch.zeros(2, WIDTH + 1))
    assert torch.equal(queue.rows, before) and int(queue.pointer) == 20


def _check_bank(rank):
    bank, single = Bank(7, WIDTH), Bank(7, WIDTH)
    assert torch.equal(bank.rows, single.rows)
    index = [torch.tensor([0, 3, 3]), torch.tensor([3, 6, 1])]
    for counts in ([2, 2], [1, 3], [3, 1]):
        parts = [x.float() for x in _rows(counts)]
        chosen = [i[:count] for i, count in zip(index, counts, strict=True)]
        bank.update(chosen[rank], parts[rank])
        # Across ranks too the last one wins.
        F.bank_update_(single.rows, torch.cat(chosen), torch.cat(parts))
    assert torch.equal(bank.rows, single.rows)
    before = bank.rows.clone()
    with pytest.raises(ValueError, match="index must be rows of bank"):
        bank.update(torch.tensor([7]), torch.ones(1, WIDTH))
    assert torch.equal(bank.rows, before)


def _check_sinkhorn(rank):
    """The sums over samples are those of all ranks, whose numbers of samples may differ."""
    for counts in ([4, 4], [1, 6]):
        parts = _rows(counts)
        want = plain.sinkhorn(torch.cat(parts), epsilon=0.3, iterations=4)
        ours = F.sinkhorn(parts[rank], epsilon=0.3, iterations=4)
        torch.testing.assert_close(ours, want.split(counts)[rank])
        alone = plain.sinkhorn(parts[rank], epsilon=0.3, iterations=4)
        assert not torch.allclose(ours, alone, rtol=1e-3)  # negative control


def _check_bad_input(rank):
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
    with pytest.raises(ValueError, match="mode must be one of gather, ring, got 'star'"):
        D.clip(good, good, 10.0, mode="star")
    with pytest.raises(ValueError, match="temperature"):
        D.info_nce(good, good, temperature=0.0)


def _two_ranks(rank):
    _check_gather(rank)
    _check_any_loss(rank)
    _check_every_loss(rank)
    _check_equal_counts(rank)
    _check_low_precision(rank)
    _check_queue(rank)
    _check_bank(rank)
    _check_sinkhorn(rank)
    _check_bad_input(rank)


def test_two_ranks(tmp_path):
    spawn(_two_ranks, 2, tmp_path)


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


def test_one_process():
    x = torch.randn(2, 3, requires_grad=True)
    assert D.gather_with_gradient(x) is x
    gathered = D.gather(x)
    assert torch.equal(gathered, x) and not gathered.requires_grad
    assert D.world_size() == 1 and D.rank() == 0
    assert torch.equal(D.mean(x), x.mean())
    assert torch.equal(D.mean(x.mean(), rows=2), x.mean())
    with pytest.raises(ValueError, match="x must be a scalar where rows is given"):
        D.mean(x, rows=2)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.title)
def test_one_process_is_the_plain_function(loss):
    parts = batch(loss, [6])
    value, grads = single(loss, parts)
    for mode in loss.modes:
        got, mine = of_rank(loss, parts, 0, {"mode": mode} if mode else {})
        assert torch.equal(got, value) and all(torch.equal(mine[k], grads[k]) for k in grads)
    with pytest.raises(ValueError, match="mode"):
        D.clip(torch.ones(1, 1), torch.ones(1, 1), 1.0, mode="star")
