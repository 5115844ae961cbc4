"""A slow or dead rank ends in torch's own error, with the state of the others unchanged.

No step waits for a fixed time: what a rank waits for is a message, so that a busy machine is no
failure.
"""

import datetime
import os
import signal

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fastcl
from fastcl import distributed as D

PATIENCE = datetime.timedelta(seconds=5)


def _assert_keep(calls, queue, bank, x, match):
    """Every call fails and leaves state and gradient as they were."""
    before = [state.clone() for state in (queue.rows, queue.pointer, bank.rows)]
    for call in calls:
        with pytest.raises(RuntimeError, match=match):
            call()
    after = (queue.rows, queue.pointer, bank.rows)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert x.grad is None


def _two_ranks(rank, folder):
    torch.set_num_threads(1)
    # The ranks' own messages, which outlive the group.
    messages = dist.FileStore(f"{folder}/messages", 2)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    group = dist.new_group([0, 1], timeout=PATIENCE)
    queue, bank = fastcl.Queue(5, 3), fastcl.Bank(5, 3)
    queue.push(torch.randn(1, 3))
    if rank == 1:
        messages.wait(["the other has waited long enough"], datetime.timedelta(seconds=250))
        os.kill(os.getpid(), signal.SIGKILL)
    x = torch.randn(2, 3, requires_grad=True)
    slow = (lambda: D.clip(x, x, 10.0, mode="ring", equal=True, group=group),)
    _assert_keep(slow, queue, bank, x, "(?i)time")
    messages.set("the other has waited long enough", "")
    dead = (
        lambda: queue.push(torch.randn(2, 3)),
        lambda: bank.update(torch.tensor([0, 3]), torch.randn(2, 3)),
        lambda: D.clip(x, x, 10.0),
        lambda: D.clip(x, x, 10.0, mode="ring", equal=True),
        lambda: D.mean(x),
    )
    _assert_keep(dead, queue, bank, x, "(?i)connection|peer|time")
    os._exit(0)  # the group cannot be left in order


@pytest.mark.slow
def test_a_slow_rank_and_a_dead_one(tmp_path):
    context = mp.get_context("spawn")
    ranks = [context.Process(target=_two_ranks, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
    assert [process.exitcode for process in ranks] == [0, -signal.SIGKILL]
