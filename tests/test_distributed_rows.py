"""What gloo ranks share equals one process: gathered rows, means, queue, bank, assignment."""

import plain
import pytest
import torch
import torch.distributed as dist
from cases import CASES, run
from distributed_cases import WIDTH
from gloo import spawn

import fastcl.functional as F
from fastcl import Bank
from fastcl import distributed as D
from fastcl.queue import Queue, queue_push_

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def _rows(counts, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, WIDTH, dtype=dtype, generator=generator) for n in counts]


def _gather(rank):
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


def _any_loss(rank):
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


def _split(name, x):
    """The rows of two ranks, a third and the rest; None where both hold all of it."""
    if x.dim() == 0 or name in ("queue", "bank", "bank_l", "bank_ab", "noise", "weight", "center"):
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


ROW_BY_ROW = (
    "moco", "byol", "simsiam", "dino", "soft_cross_entropy", "inst_disc", "nce", "nce_noise", "cmc",
)  # fmt: skip


def _every_loss(rank):
    """Of the table: on gathered rows; and without gathering where a row meets no other."""
    for case in CASES:
        gather = (D.gather_with_gradient, lambda loss, _: loss)
        _gradients_of_case(case, rank, gather)
        if case.name in ROW_BY_ROW:
            _gradients_of_case(case, rank, (lambda x: x, lambda loss, n: D.mean(loss, rows=n)))


def _queue(rank):
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


def _bank(rank):
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


def _sinkhorn(rank):
    """The sums over samples are those of all ranks, whose numbers of samples may differ."""
    for counts in ([4, 4], [1, 6]):
        parts = _rows(counts)
        want = plain.sinkhorn(torch.cat(parts), epsilon=0.3, iterations=4)
        ours = F.sinkhorn(parts[rank], epsilon=0.3, iterations=4)
        torch.testing.assert_close(ours, want.split(counts)[rank])
        alone = plain.sinkhorn(parts[rank], epsilon=0.3, iterations=4)
        assert not torch.allclose(ours, alone, rtol=1e-3)  # negative control


CHECKS = (_gather, _any_loss, _every_loss, _queue, _bank, _sinkhorn)


@pytest.mark.parametrize("check", CHECKS)
def test_two_ranks(check, tmp_path):
    spawn(check, 2, tmp_path)


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
