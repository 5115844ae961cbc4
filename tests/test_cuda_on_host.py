"""The CUDA C++ kernels run on the CPU, thread by thread in random order, against the reference.

Every shared variable is NaN until it is written, bulk copies land late and at random, and what
the kernels may not touch is looked at too. Faults planted in the sources show what these tests see.
"""

import math
import shutil

import cuda_on_host as host
import pytest
import torch
from test_gpu_hopper import allowed, close, exact, ranges, unit

from fastcl import reference
from fastcl.reference.contrast_sums import BLOCK, COLUMNS, TILE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]
FENCE = 64  # elements around what a kernel may write


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """library(kernel), compiled once; library(kernel, fault) with a fault in it."""
    built = {}

    def get(kernel, fault=None):
        if (kernel, fault) not in built:
            built[kernel, fault] = host.build(kernel, tmp_path_factory.mktemp(kernel), fault)
        return built[kernel, fault]

    return get


def same_bits(a, b):
    assert torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def fenced(x, offset=0):
    """A copy of x `offset` elements away from alignment, and all the memory around it."""
    memory = torch.full((x.numel() + 2 * FENCE + offset,), 77, dtype=x.dtype)
    inside = memory[FENCE + offset :][: x.numel()].view(x.shape)
    return inside.copy_(x), memory


def check_queue(library, into, source, width, offset=0, size=100, batches=(1, 64, 260, 100)):
    for normalize in (False, True):
        want = torch.zeros(size, width, dtype=into)
        queue, memory = fenced(want)
        pointers = torch.tensor(7), torch.tensor(7)
        around = memory.clone()
        for count in batches:
            rows = fenced(torch.randn(count, width).to(source), offset)[0]
            host.queue_push_(library, queue, pointers[0], rows, normalize)
            reference.queue_push_(want, pointers[1], rows, normalize)
        assert pointers[0] == pointers[1]
        if normalize:  # the sum of a row's squares has another order
            tolerance = 2 * torch.finfo(into).eps + 4 * width * 2.0**-24
            torch.testing.assert_close(queue, want, rtol=tolerance, atol=torch.finfo(into).tiny)
        else:
            same_bits(queue, want)
        queue.copy_(around[FENCE:-FENCE].view(size, width))
        same_bits(memory, around)


@pytest.mark.parametrize("source", host.DTYPES)
@pytest.mark.parametrize("into", host.DTYPES)
def test_queue(library, into, source):
    for width, offset in ((1, 0), (37, 1), (64, 0), (64, 1)):
        check_queue(library("queue"), into, source, width, offset)


def test_queue_in_many_blocks(library):
    check_queue(library("queue"), torch.float32, torch.bfloat16, 256, 0, 5000, (1, 6000))


def check_momentum(library, into, source, momentum=0.99, seeded=True, more=0, tensor=None):
    """Tensors of all lengths, aligned and not; the last ones are integers."""
    counts = [8193, 1, 0, 15, 1000, 17000] + [7] * more
    ours, theirs, online, memories = [], [], [], []
    for i, count in enumerate(counts):
        x, memory = fenced(torch.randn(count).to(into), int(i % 3 == 2))
        ours.append(x), theirs.append(x.clone()), memories.append((memory, memory.clone()))
        online.append(fenced(torch.randn(count).to(source), i % 2)[0])
    for count in (5, 64):
        ours.append(torch.zeros(count, dtype=torch.int32)), theirs.append(ours[-1].clone())
        online.append(torch.arange(count, dtype=torch.int32))
    seeds = (torch.tensor(2**32 - 1), torch.tensor(2**32 - 1)) if seeded else (None, None)
    for _ in range(2):
        host.momentum_update_(library, ours, online, momentum, tensor, seeds[0])
        reference.momentum_update_(theirs, online, momentum, tensor, seeds[1])
    assert seeds[0] == seeds[1]
    for a, b in zip(ours, theirs, strict=True):
        same_bits(a, b)
    for x, (after, before) in zip(ours, memories, strict=False):
        x.zero_(), before[x.storage_offset() :][: x.numel()].zero_()
        same_bits(after, before)


@pytest.mark.parametrize("source", host.DTYPES)
@pytest.mark.parametrize("into", host.DTYPES)
def test_momentum(library, into, source):
    for momentum in (0.0, 0.3, 0.99, 1.0):
        for seeded in (False, True):
            check_momentum(library("momentum"), into, source, momentum, seeded)


@pytest.mark.parametrize("dtype", host.DTYPES)
def test_momentum_in_a_tensor(library, dtype):
    tensor = torch.tensor(0.75, dtype=dtype)
    check_momentum(library("momentum"), torch.float32, torch.float32, 0.0, tensor=tensor)


def test_more_tensors_than_a_launch_takes(library):
    check_momentum(library("momentum"), torch.bfloat16, torch.float32, more=1200)


def check_sums(library, n, m, d, scale=10.0, strip=1, with_ids=False, processors=4, first=0,
               tiles=None, seed=1, logit_scale=None):  # fmt: skip
    """What the kernel may not write stays NaN; what it must write is NaN no more."""
    torch.manual_seed(0)
    q, k = unit(n, d, "cpu"), unit(m, d, "cpu")
    tiles = -(-n // TILE) - first if tiles is None else tiles
    rows = torch.full((math.ceil(math.ceil(m / COLUMNS) / strip), n), torch.nan)
    cols, memory = fenced(torch.full((2 * tiles, m), torch.nan))
    ids, spans = (None, None), (None, None)
    if with_ids:
        ids = torch.arange(n), torch.arange(m)
        ids[1][::97] = 0
        spans = ranges(ids[0], BLOCK), ranges(ids[1], COLUMNS)
    host.contrast_sums_(
        library, q, k, scale, logit_scale, *ids, *spans, first, tiles, strip, processors, rows,
        cols, seed,
    )  # fmt: skip
    total = scale * (1.0 if logit_scale is None else float(logit_scale))
    here = slice(first * TILE, min(n, (first + tiles) * TILE))
    truth = exact(q, k, ids if with_ids else None, total)
    error = allowed(q, k, truth, total)[here]
    truth = truth[here]
    for part, (e, bound) in enumerate(
        zip(truth.split(strip * COLUMNS, 1), error.split(strip * COLUMNS, 1), strict=True)
    ):
        close(rows[part, here], e.sum(1), bound.sum(1))
    rows[:, here] = torch.nan
    assert rows.isnan().all()
    for line, (e, bound) in enumerate(zip(truth.split(BLOCK), error.split(BLOCK), strict=True)):
        close(cols[line], e.sum(0), bound.sum(0))
    assert (cols[-(-len(truth) // BLOCK) :] == 0).all()
    assert (memory[:FENCE] == 77).all() and (memory[-FENCE:] == 77).all()


SUMS = [
    dict(n=1, m=1, d=8),
    dict(n=63, m=65, d=64, scale=100.0),
    dict(n=128, m=256, d=64, with_ids=True),
    dict(n=129, m=257, d=72, scale=100.0, with_ids=True),
    dict(n=300, m=1000, d=512, scale=100.0, strip=3, with_ids=True, processors=132),
    dict(n=300, m=1000, d=192, strip=2, processors=2),
    dict(n=700, m=300, d=64, scale=20.0, first=2, tiles=3),
    dict(n=1000, m=300, d=128, scale=30.0, with_ids=True),
    dict(n=520, m=1300, d=64, scale=50.0, with_ids=True, processors=2),
]


@pytest.mark.parametrize("case", SUMS, ids=lambda case: "-".join(map(str, case.values())))
def test_sums(library, case):
    check_sums(library("contrast_sums"), **case)


@pytest.mark.parametrize("seed", (2, 3, 4))
def test_sums_in_another_order(library, seed):
    half = torch.tensor([0.5])
    check_sums(library("contrast_sums"), 300, 600, 320, 20.0, 2, processors=2, seed=seed,
               logit_scale=half)  # fmt: skip


def test_rows_that_the_copy_engine_refuses(library):
    x = torch.zeros(1 + 8 * 64, dtype=torch.bfloat16)[1:].view(8, 64)
    part = torch.zeros(2, 8)
    with pytest.raises(host.HostError, match="cannot be described to the bulk copy engine"):
        host.contrast_sums_(
            library("contrast_sums"), x, x, 1.0, *[None] * 5, 0, 1, 1, 2, part, part
        )


def queue_check(library):
    check_queue(library, torch.float32, torch.bfloat16, 64)


def momentum_check(library):
    check_momentum(library, torch.bfloat16, torch.float32)


def sums_check(library):
    for seed in (1, 2, 3):
        check_sums(library, 200, 300, 64, seed=seed)
        check_sums(library, 300, 600, 320, 20.0, 2, processors=2, seed=seed)
    check_sums(library, 700, 300, 64, first=2, tiles=3)


# The check, the kernel, and a piece of its source with what takes its place.
FAULTS = {
    "no barrier before the position is read": (
        queue_check, "queue", "  __syncthreads();\n  while (i < count)", "  while (i < count)"),
    "the ring wraps a vector late": (
        queue_check, "queue", "at < capacity ?", "at <= capacity ?"),
    "the first block moves the pointer": (
        queue_check, "queue", "seen >> 48 == gridDim.x - 1", "seen >> 48 == 0"),
    "no barrier before the seed is read": (
        momentum_check, "momentum", "    __syncthreads();\n", ""),
    "a product does not wait for its rows": (
        sums_check, "contrast_sums",
        "    hopper::barrier_wait(&shared.full[ring.stage], ring.parity);\n", ""),
    "a load does not wait for the readers": (
        sums_check, "contrast_sums",
        "        hopper::barrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);\n", ""),
    "the ring forgets its parity": (
        sums_check, "contrast_sums", "stage = 0, parity ^= 1", "stage = 0"),
    "a stage is released under its product": (
        sums_check, "contrast_sums", "hopper::product_wait<1>()", "hopper::product_wait<2>()"),
    "the logits are read before they are there": (
        sums_check, "contrast_sums", "hopper::product_wait<0>();", ""),
    "one block's readers release for both": (
        sums_check, "contrast_sums", "empty[i], 2 * kBlocks)", "empty[i], kBlocks)"),
    "a block leaves before the other has arrived at its barriers": (
        sums_check, "contrast_sums",
        "  hopper::cluster_meet();  // nor arrives at one that has gone\n", ""),
    "a tile too many is written": (
        sums_check, "contrast_sums", "r < p.n && !spare", "r < p.n"),
}  # fmt: skip


@pytest.mark.parametrize(
    "kernel, check",
    [("queue", queue_check), ("momentum", momentum_check), ("contrast_sums", sums_check)],
)
def test_without_a_fault_the_checks_pass(library, kernel, check):
    check(library(kernel))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(library, fault):
    check, kernel, *change = FAULTS[fault]
    with pytest.raises((AssertionError, host.HostError)):
        check(library(kernel, tuple(change)))
