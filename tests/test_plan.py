"""The cost model counts what the code moves and computes."""

from types import SimpleNamespace

import pytest
import torch
from threaded_ranks import run

from benchmarks import cost, plan
from benchmarks.cost import Link, Machine
from fastcl import distributed
from fastcl.distributed import _plan

FAST = Link(0.0, float("inf"))
GPU = Machine(
    rate=4e14, launch=3e-5, collective=Link(1e-5, 3.6e11), message=Link(1e-5, 3.6e11),
    card=Link(1e-5, 4.5e10), per_node=8, overlaps=True, element=2, units=132, tile=128,
)  # fmt: skip
B, D, WORLD = 3, 4, 5


def _moved(mode, monkeypatch):
    """Bytes that rank 0 sends in messages and contributes to collectives, in float32."""
    monkeypatch.setattr(_plan, "Ranks", lambda group: group)
    moved = {"messages": 0, "collectives": 0}

    def counted(ranks, name, size):
        original = getattr(ranks, name)

        def call(*arguments):
            if ranks.rank == 0:
                kind = "messages" if name == "exchange" else "collectives"
                moved[kind] += size(*arguments)
            return original(*arguments)

        setattr(ranks, name, call)

    def one(ranks):
        counted(ranks, "exchange", lambda sends, _: sum(x.nbytes for x, _ in sends))
        counted(ranks, "gather", lambda x, _: WORLD * x.nbytes)
        counted(ranks, "transpose", lambda x, _: x.nbytes)
        counted(ranks, "scatter_sum", lambda x, _: x.nbytes)
        q, k = (torch.randn(B, D, requires_grad=True) for _ in range(2))
        distributed.clip(q, k, 10.0, mode=mode, group=ranks, equal=True).backward()

    run(WORLD, one)
    return SimpleNamespace(**moved)


def test_bytes_of_the_ring(monkeypatch):
    expected = sum((WORLD - 1) * (forth + home) + home for forth, home in cost.messages(B, D, 4))
    moved = _moved("ring", monkeypatch)
    assert moved.messages == expected and moved.collectives == 0


def test_bytes_of_gather(monkeypatch):
    moved = _moved("gather", monkeypatch)
    assert moved.collectives == sum(cost.collectives(B, D, WORLD, 4)) and moved.messages == 0


def test_free_links_leave_the_products():
    machine = Machine(1e12, 0.0, FAST, FAST, FAST, 8, True, 2)
    for mode in cost.MODES.values():
        result = mode(machine, 4, 100, 64)
        assert result.exposed == 0
        assert result.compute == pytest.approx(4 * 2 * 100 * 400 * 64 / 1e12)


def test_more_ranks_or_slower_links_never_compute_more_or_wait_less():
    slow = Machine(**{**vars(GPU), "card": Link(1e-4, 1e9)})
    for mode in cost.MODES.values():
        assert mode(slow, 64, 512, 512).exposed > mode(GPU, 64, 512, 512).exposed
        assert mode(GPU, 64, 4096, 512).compute < mode(GPU, 8, 32768, 512).compute


def test_chosen_fits_if_anything_does():
    costs = {mode: f(GPU, 1024, 32, 512) for mode, f in cost.MODES.items()}
    assert cost.chosen(costs, float("inf")) == "gather"  # 1,024 steps of tiny blocks otherwise
    assert cost.chosen(costs, costs["ring"].memory) == "ring"
    rows = plan.planned(GPU, 512, 16e9)
    assert len(rows) == 2 * len(plan.WORLDS) * len(plan.BATCHES)
    assert sum(row["chosen"] == row["mode"] for row in rows) == len(rows) / 2


def test_a_line_through_the_points_never_starts_below_zero():
    assert plan._line([(1, 5), (2, 7), (4, 11)]) == pytest.approx((3, 2))
    start, slope = plan._line([(1, 1), (2, 3), (4, 7)])
    assert start == 0 and 1 < slope < 2
    start, slope = plan._line([(1, 2), (2, 1)])  # noise: a larger size is never free
    assert start == 0 and slope > 0


def test_a_fit_predicts_its_own_machine():
    """Rates and links come back from the times that they make."""
    link, units = Link(2e-4, 3e9), cost.FORWARD + cost.BACKWARD
    seconds = {}
    for n in (64, 128, 256):
        size = 4 * n * plan.GLOO_WIDTH
        seconds[f"block {n}"] = 1e-3 + units * 2 * n * n * plan.GLOO_WIDTH / 5e10
        seconds[f"message {n}"] = link.seconds(size)
        seconds[f"gather {n}"] = 2 * link.seconds(size)
    machine = plan._fitted(seconds, (64, 128, 256), 3)
    assert machine.rate == pytest.approx(5e10) and machine.launch == pytest.approx(5e-4)
    for fitted in (machine.message, machine.collective):
        assert tuple(fitted) == pytest.approx(tuple(link))


@pytest.mark.slow
def test_the_validation_runs():
    rows = plan.validation((2,), fit=(16, 32), held=(48,), rounds=1)
    assert [row["mode"] for row in rows] == ["gather", "ring"]
    assert all(row["measured_ms"] > 0 and row["total_ms"] > 0 for row in rows)
