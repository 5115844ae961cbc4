"""A slow or dead rank ends in torch's own error, with the state of the others unchanged."""

import datetime
import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fastcl
from fastcl import distributed as D

PATIENCE = datetime.timedelta(seconds=4)


def _assert_raises_and_keeps(queue, group, match):
    rows, pointer = queue.rows.clone(), queue.pointer.clone()
    x = torch.randn(2, 3, requires_grad=True)
    calls = {
        "push": lambda: queue.push(torch.randn(2, 3)),
        "gather": lambda: D.clip(x, x, 10.0, group=group),
        "ring": lambda: D.clip(x, x, 10.0, mode="ring", equal=True, group=group),
        "mean": lambda: D.mean(x, group=group),
    }
    calls = calls if group is None else {"ring": calls["ring"]}
    for call in calls.values():
        with pytest.raises(RuntimeError, match=match):
            call()
    assert torch.equal(queue.rows, rows) and torch.equal(queue.pointer, pointer)
    assert x.grad is None


def _survivor(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    group = dist.new_group([0, 1], timeout=PATIENCE)
    queue = fastcl.Queue(5, 3)
    queue.push(torch.randn(1, 3))
    if rank == 1:
        time.sleep(2 * PATIENCE.total_seconds())  # slow: never joins the group's ring
        os.kill(os.getpid(), signal.SIGKILL)
    _assert_raises_and_keeps(queue, group, "(?i)time")
    time.sleep(2 * PATIENCE.total_seconds())
    _assert_raises_and_keeps(queue, None, "(?i)connection|peer|time")
    os._exit(0)  # the group cannot be left in order


@pytest.mark.slow
def test_a_slow_rank_and_a_dead_one(tmp_path):
    context = mp.get_context("spawn")
    ranks = [context.Process(target=_survivor, args=(r, str(tmp_path / "store"))) for r in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
    assert [process.exitcode for process in ranks] == [0, -signal.SIGKILL]
