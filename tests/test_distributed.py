"""Two gloo ranks against one process; and nothing in one process."""

import copy

import plain
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fastcl import Bank, distributed
from fastcl.functional import bank_update_, sinkhorn
from fastcl.queue import Queue, queue_push_

WORLD = 2
WIDTH = 3


def _batch(counts: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, WIDTH, dtype=torch.float64, generator=generator) for n in counts]


def _loss(z: torch.Tensor) -> torch.Tensor:
    """A mean over the rows in which every row depends on all."""
    return (z @ z.T).logsumexp(1).mean()


def _local_loss(z: torch.Tensor, everyone: torch.Tensor) -> torch.Tensor:
    return (z @ everyone.T).logsumexp(1).mean()


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(WIDTH, WIDTH).double()


def _gradients(loss: torch.Tensor, model: torch.nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def _averaged(grads: list[torch.Tensor]) -> list[torch.Tensor]:
    """What DistributedDataParallel does."""
    for grad in grads:
        dist.all_reduce(grad)
    return [grad / WORLD for grad in grads]


def _check_gather(rank: int) -> None:
    for counts in ([3, 3], [1, 4], [5, 0]):
        parts = _batch(counts)
        mine = parts[rank].clone().requires_grad_()
        gathered = distributed.gather(mine)
        assert torch.equal(gathered, torch.cat(parts)) and not gathered.requires_grad
    ids = torch.arange(2) + 2 * rank
    assert torch.equal(distributed.gather(ids, equal=True), torch.arange(4))
    assert distributed.world_size() == WORLD and distributed.rank() == rank


def _check_gradients(rank: int) -> None:
    for counts in ([3, 3], [1, 4]):
        parts, model = _batch(counts), _model()
        want = _gradients(_loss(model(torch.cat(parts))), model)
        twin = copy.deepcopy(model)
        z = distributed.gather_with_gradient(twin(parts[rank]))
        got = _averaged(_gradients(_loss(z), twin))
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    # Each rank's own rows against all: a mean over the global batch where the counts are equal.
    parts = _batch([3, 3])
    want = _gradients(_loss(model(torch.cat(parts))), model)
    z = twin(parts[rank])
    got = _averaged(_gradients(_local_loss(z, distributed.gather_with_gradient(z)), twin))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    # Negative control: without the gradient through the gathered rows the result is another.
    z = twin(parts[rank])
    cut = _averaged(_gradients(_local_loss(z, distributed.gather(z)), twin))
    assert not torch.allclose(cut[0], want[0], rtol=1e-3)


def _check_queue(rank: int) -> None:
    queue, single = Queue(7, WIDTH), Queue(7, WIDTH)
    assert torch.equal(queue.rows, single.rows)
    for counts in ([2, 2], [1, 4], [5, 6]):
        parts = _batch(counts)
        queue.push(parts[rank])
        for part in parts:
            queue_push_(single.rows, single.pointer, part)
    assert torch.equal(queue.rows, single.rows) and int(queue.pointer) == 20
    before = queue.rows.clone()
    with pytest.raises(ValueError, match="width"):
        queue.push(torch.zeros(2, WIDTH + 1))
    assert torch.equal(queue.rows, before) and int(queue.pointer) == 20


def _check_bank(rank: int) -> None:
    bank, single = Bank(7, WIDTH), Bank(7, WIDTH)
    assert torch.equal(bank.rows, single.rows)
    index = [torch.tensor([0, 3, 3]), torch.tensor([3, 6, 1])]
    for counts in ([2, 2], [1, 3], [3, 1]):
        parts = [x.float() for x in _batch(counts)]
        chosen = [i[:count] for i, count in zip(index, counts, strict=True)]
        bank.update(chosen[rank], parts[rank])
        # Across ranks too the last one wins.
        bank_update_(single.rows, torch.cat(chosen), torch.cat(parts))
    assert torch.equal(bank.rows, single.rows)
    before = bank.rows.clone()
    with pytest.raises(ValueError, match="index must be rows of bank"):
        bank.update(torch.tensor([7]), torch.ones(1, WIDTH))
    assert torch.equal(bank.rows, before)


def _check_sinkhorn(rank: int) -> None:
    """The sums over samples are those of all ranks, whose numbers of samples may differ."""
    for counts in ([4, 4], [1, 6]):
        parts = _batch(counts)
        want = plain.sinkhorn(torch.cat(parts), epsilon=0.3, iterations=4)
        ours = sinkhorn(parts[rank], epsilon=0.3, iterations=4)
        torch.testing.assert_close(ours, want.split(counts)[rank])
        alone = plain.sinkhorn(parts[rank], epsilon=0.3, iterations=4)
        assert not torch.allclose(ours, alone, rtol=1e-3)  # negative control


def _check_failure() -> None:
    """A collective that raises leaves the queue as it was."""
    queue = Queue(7, WIDTH)
    before = queue.rows.clone()
    original, dist.all_gather = dist.all_gather, _broken
    try:
        with pytest.raises(RuntimeError, match="lost"):
            queue.push(torch.ones(2, WIDTH))
    finally:
        dist.all_gather = original
    assert torch.equal(queue.rows, before) and int(queue.pointer) == 0


def _broken(*_):
    raise RuntimeError("a rank was lost")


def _rank(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    try:
        _check_gather(rank)
        _check_gradients(rank)
        _check_queue(rank)
        _check_bank(rank)
        _check_sinkhorn(rank)
        _check_failure()
    finally:
        dist.destroy_process_group()


def test_two_ranks(tmp_path):
    mp.spawn(_rank, args=(str(tmp_path / "store"),), nprocs=WORLD)


def test_one_process():
    x = torch.randn(2, 3, requires_grad=True)
    assert distributed.gather_with_gradient(x) is x
    gathered = distributed.gather(x)
    assert torch.equal(gathered, x) and not gathered.requires_grad
    assert distributed.world_size() == 1 and distributed.rank() == 0
