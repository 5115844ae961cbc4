"""Schedule and losses of many ranks in one process, driven by ranks that are threads."""

import weakref

import pytest
import torch
from distributed_cases import LOSSES, assert_exact, batch, of_rank
from hypothesis import given
from hypothesis import strategies as st
from threaded_ranks import run

from fastcl import distributed as D
from fastcl.distributed import _plan
from fastcl.distributed._schedule import last_step, part, ring, runs

SIZES = (2, 3, 4, 5, 8, 64, 65)


def _counts(size):
    return [1 + (7 * i) % 4 for i in range(size)]


@pytest.fixture
def threads(monkeypatch):
    """The group that the losses are given is used in place of a process group."""
    monkeypatch.setattr(_plan, "Ranks", lambda group: group)
    torch.set_num_threads(1)


def _tally(counts, pairs):
    """How often each row met each column, [n, n]."""
    starts = [sum(counts[:i]) for i in range(len(counts) + 1)]
    seen = torch.zeros(starts[-1], starts[-1], dtype=torch.int64)
    for rank, rows, columns in pairs:
        first = starts[rank]
        seen[first + rows.start : first + rows.stop, columns] += 1
    return seen


def _expected(counts, symmetric):
    """Each pair once; each unordered pair of two ranks once where symmetric."""
    n = sum(counts)
    if not symmetric:
        return torch.ones(n, n, dtype=torch.int64)
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return (owner[:, None] != owner).long()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_ring_meets_every_pair_once(size, symmetric):
    """The columns that pass by carry their global position; the report brings home who saw them."""
    counts = _counts(size)
    starts = [sum(counts[:i]) for i in range(size)]

    def one(ranks):
        start, met = starts[ranks.rank], []
        mine = torch.arange(counts[ranks.rank]) + start

        def visit(step, block):
            (columns,) = block
            report = torch.zeros(len(columns), sum(counts), dtype=torch.int64)
            rows, cut = part(ranks.rank, step, counts, symmetric)
            if not (symmetric and step == 0):
                met.append((ranks.rank, rows, columns[cut]))
                report[cut, start + rows.start : start + rows.stop] += 1
            return report

        news = torch.empty(0, sum(counts), dtype=torch.int64)
        return met, ring(ranks, counts, (mine,), symmetric, visit, torch.add, news)

    results = run(size, one)
    seen = _tally(counts, [pair for met, _ in results for pair in met])
    expected = _expected(counts, symmetric)
    assert torch.equal(seen + seen.T if symmetric else seen, expected)
    assert torch.equal(torch.cat([report for _, report in results]), seen.T)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=9))
def test_runs_are_the_visits(counts):
    starts = [sum(counts[:i]) for i in range(len(counts))]
    pairs, visits = [], []
    for rank in range(len(counts)):
        pairs += [(rank, rows, columns) for rows, columns in runs(rank, counts)]
        for step in range(1, last_step(len(counts), True) + 1):
            rows, cut = part(rank, step, counts, True)
            start = starts[(rank - step) % len(counts)]
            visits.append((rank, rows, slice(start + cut.start, start + cut.stop)))
    assert torch.equal(_tally(counts, pairs), _tally(counts, visits))
    # Neighbours are joined: the columns of a rank are two runs at most, and a shared block.
    assert max(len(runs(rank, counts)) for rank in range(len(counts))) <= 3


def test_the_next_block_moves_while_this_one_is_visited():
    """Every message of a step is under way before its visit."""
    log = []

    def one(ranks):
        exchange = ranks.exchange

        def logged(sends, receives):
            log.append((ranks.rank, "moves", len(sends)))
            return exchange(sends, receives)

        ranks.exchange = logged

        def visit(step, block):
            log.append((ranks.rank, "visit", step))
            return block[0].double()[:, None]

        own = (torch.arange(2) + 2 * ranks.rank,)
        news = torch.empty(0, 1, dtype=torch.float64)
        return ring(ranks, [2] * 4, own, False, visit, torch.add, news)

    for rank, report in enumerate(run(4, one)):
        assert report.flatten().tolist() == [4.0 * (2 * rank + i) for i in range(2)]
    mine = [entry[1:] for entry in log if entry[0] == 0]
    # The block; block and report; block and report; report; and the report comes home.
    moves = [("moves", n) for n in (1, 2, 2, 1)]
    steps = [x for i, move in enumerate(moves) for x in (move, ("visit", i))]
    assert mine == [*steps, ("moves", 1)]


def test_memory_is_local():
    """While a block is visited, of all others only the own one is still there."""

    def one(ranks):
        seen, alive = [], []

        def visit(step, block):
            seen.append(weakref.ref(block[0]))
            alive.append(sum(ref() is not None for ref in seen))
            return block[0].clone()

        own = (torch.full((2, 3), float(ranks.rank)),)
        ring(ranks, [2] * 9, own, False, visit, torch.add, torch.empty(0, 3))
        return alive

    for alive in run(9, one):
        assert alive == [1] + [2] * 8


def test_second_derivative_is_refused(threads):
    def one(ranks):
        z = torch.randn(2, 3, requires_grad=True)
        for mode in ("gather", "ring"):
            for loss in (
                D.nt_xent(z, z + 1, mode=mode, group=ranks),
                D.info_nce(z, z + 1, mode=mode, group=ranks),
                D.siglip(z, z + 1, 10.0, -1.0, mode=mode, group=ranks, normalize=False),
            ):
                with pytest.raises(RuntimeError, match="second derivative"):
                    torch.autograd.grad(loss, z, create_graph=True)
        return True

    assert all(run(2, one))


def _results(loss, counts, mode, seed=0):
    parts = batch(loss, counts, seed)
    extra = {"mode": mode} if mode else {}
    results = run(
        len(counts), lambda ranks: of_rank(loss, parts, ranks.rank, {"group": ranks, **extra})
    )
    return parts, results


@pytest.mark.parametrize("counts", [[3, 3], [1, 4], [2, 1, 3], [1, 1, 1, 1], [3, 1, 4, 2, 2, 1]])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.title)
def test_several_ranks_equal_one_process(loss, counts, threads):
    for mode in loss.modes:
        parts, results = _results(loss, counts, mode)
        assert_exact(loss, parts, results)


@pytest.mark.parametrize("size", [11, pytest.param(65, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", [LOSSES[i] for i in (2, 5, 7, 10)], ids=lambda loss: loss.title)
def test_many_ranks_equal_one_process(loss, size, threads):
    for mode in loss.modes:
        parts, results = _results(loss, _counts(size), mode)
        assert_exact(loss, parts, results)
