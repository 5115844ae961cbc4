"""Every compiled operator again and again under changing numbers of threads: the same bits.

``make race`` (once per release) writes benchmarks/results/race.csv; where two calls differ the last
column counts them and the exit status is 1.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as nnf
from contrasts import fields, to
from torch import Tensor

from benchmarks import report
from fastcl._library import ops

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "race.csv"
# More than there are cores, too: threads then wait for each other in any order.
THREADS = 1, 2, 3, 5, 8
# Two blocks of rows and of columns, the last of them odd.
N, M, D = 301, 333, 40
DTYPES = torch.float32, torch.bfloat16, torch.float64

Call = Callable[[], object]


def _rows(n: int, dtype: torch.dtype, d: int = D) -> Tensor:
    return nnf.normalize(torch.randn(n, d, dtype=torch.float64)).to(dtype)


def _contrasts(dtype: torch.dtype) -> Iterator[tuple[str, Call]]:
    q, k, own = (torch.randn(n, D, dtype=torch.float64) / D**0.5 for n in (N, M, N))
    ids, columns = torch.arange(N) // 2, torch.arange(M) // 2
    divided = {"normalize": True, "scale": 20.0}
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for p in (
        fields(q, k, ids=(ids, columns), both=True, **divided),
        fields([q[:99], q[99:]], ids=ids, **divided),
        fields(q, k, own=own, paired=False, **divided),
        fields(q, k, own=own, limit=torch.rand(N).double(), **divided),
        fields(q, k, ids=(ids, columns), unit=False, scale=20.0),  # the running maximum
    ):
        p = to(p, dtype)
        needs = True, not p.symmetric, p.own is not None, True
        yield "contrast_mean", lambda p=p, needs=needs: ops.contrast_mean(*p, *needs)
        pivot = None if p.both or p.symmetric else torch.rand(N, dtype=wide)
        forward = ops.contrast_forward(*p, pivot, False, False)
        yield (
            "contrast_forward",
            lambda p=p, pivot=pivot: ops.contrast_forward(*p, pivot, True, False),
        )
        grads = [torch.randn(N, dtype=wide), None, None, None]
        if p.both:
            grads[2] = torch.randn(M, dtype=wide)
        kept = [forward[0], forward[1], forward[3][:0]]
        yield (
            "contrast_backward",
            lambda p=p, kept=kept, grads=grads, needs=needs: ops.contrast_backward(
                *p, *kept, *grads, *needs
            ),
        )
    p = to(fields(q, k, ids=(ids, columns), **divided), dtype)
    yield "sigmoid_contrast", lambda: ops.sigmoid_contrast(*p, -3.0, None, True, True)
    pair = q.to(dtype), k[:N].to(dtype)
    yield (
        "nested_contrast_mean",
        lambda: ops.nested_contrast_mean(*pair, None, 20.0, [16, D], [1.0, 0.5], True, True, True),
    )
    yield from _late(dtype)


def _late(dtype: torch.dtype) -> Iterator[tuple[str, Call]]:
    """Items of several tokens, some of them left out."""
    query, document, hard = (_rows(20 * n, dtype).view(20, n, D) for n in (9, 17, 34))
    hard = hard.reshape(20, 2, 17, D)
    masks = [torch.rand(x.shape[:-1]) < 0.8 for x in (query, document, hard)]
    yield (
        "max_sim_mean",
        lambda: ops.max_sim_mean(
            query, document, hard, *masks, None, 20.0, True, True, True, True, True
        ),
    )


def _others(dtype: torch.dtype) -> Iterator[tuple[str, Call]]:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x, bank, long = _rows(N, dtype), _rows(M, dtype), torch.randn(4 * N, D).to(dtype)
    if dtype != torch.bfloat16:
        a, b = x, bank.T.contiguous()
        yield "product", lambda: ops.product(a, b, False, False)
    lengths = ops.unit_rows_forward([long])[1]
    yield "unit_rows_forward", lambda: ops.unit_rows_forward([long[:99], long[99:]])
    yield "unit_rows_backward", lambda: ops.unit_rows_backward(long, [long], lengths)
    index = torch.randint(M, (N, 33))
    yield "nce", lambda: ops.nce(x, bank, index, 10.0, -3.0, None, None, True)
    scores = 2 * torch.rand(N, M).to(dtype) - 1
    potential = -ops.sinkhorn_columns(scores, 20.0)
    target = torch.rand(N, M).softmax(1).to(wide)
    yield "sinkhorn_columns", lambda: ops.sinkhorn_columns(scores, 20.0)
    yield "sinkhorn_masses", lambda: ops.sinkhorn_masses(scores, 20.0, potential)
    yield "sinkhorn_assign", lambda: ops.sinkhorn_assign(scores, 20.0, potential)
    yield "sinkhorn", lambda: ops.sinkhorn(scores, scores[:99].clone(), 20.0, 3)
    yield "soft_cross_entropy", lambda: ops.soft_cross_entropy(scores, target, 10.0, 0.5, True)
    yield from _written(dtype, x, bank)
    parameters = torch.tensor([3.0, 5, 30, 40, 1, 1.2, 0.7, 1.4, 0.1, 7, 0, 1.1, 0.6])
    images = (255 * torch.rand(9, 3, 40, 50)).to(torch.uint8)
    views = parameters.repeat(9, 2, 1)
    plain = [torch.rand(3), torch.rand(3) + 0.5]
    yield (
        "random_views",
        lambda: ops.random_views(
            images, None, None, views, 33, 9, *plain, torch.float32, False, True
        ),
    )

    image = images[:1].permute(0, 2, 3, 1).contiguous()[0]

    def to_memory() -> Tensor:
        out = torch.empty(2, 9, 3, 33, 33)
        ops.random_views_(images, None, None, views, 9, *plain, False, False, out)
        return out

    def one_image() -> Tensor:
        out = torch.empty(2, 1, 33, 33, 3)
        ops.image_views_(image, views, 0, 9, *plain, True, out, 0)
        return out

    yield "random_views_", to_memory
    yield "image_views_", one_image
    recipes = [torch.rand(33, 1, 2), torch.ones(33, 1, 2), torch.ones(2, 1, 2), torch.ones(1, 2)]
    numbers, sizes = torch.rand(33, 9, 2), torch.full((9, 2), 40)
    yield "draw_views", lambda: ops.draw_views(numbers, sizes, None, *recipes, None)


def _written(dtype: torch.dtype, x: Tensor, bank: Tensor) -> Iterator[tuple[str, Call]]:
    """In copies of what is there."""
    index = torch.randint(M, (N,))
    lists = [torch.randn(n).to(dtype) for n in (5, 70_001, 16_384)]

    def update() -> Tensor:
        ops.bank_update_(copy := bank.clone(), index, x, 0.5)
        return copy

    def push(normalize: bool) -> list[Tensor]:
        copy, pointer = bank.clone(), torch.tensor(M - 7)
        ops.queue_push_(copy, pointer, x, normalize)
        return [copy, pointer]

    def move() -> list[Tensor]:
        copies, seed = [t.clone() for t in lists], torch.tensor(3)
        ops.momentum_update_(copies, [-t for t in lists], 0.9, None, seed)
        return [*copies, seed]

    yield "bank_update_", update
    yield "queue_push_", lambda: push(False)
    yield "queue_push_", lambda: push(True)
    yield "momentum_update_", move


def calls(dtype: torch.dtype) -> Iterator[tuple[str, Call]]:
    torch.manual_seed(0)
    yield from _contrasts(dtype)
    yield from _others(dtype)


def _bits(found) -> list[Tensor]:
    """Of every element, as whole numbers: NaN is equal to itself."""
    tensors = [found] if isinstance(found, Tensor) else list(found)
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [
        x.contiguous().view(whole[x.element_size()]) if x.element_size() > 1 else x for x in tensors
    ]


def differing(call: Call, repeats: int) -> int:
    """How many of the repeats give other bits than one thread."""
    before, differ = torch.get_num_threads(), 0
    try:
        torch.set_num_threads(1)
        first = [x.clone() for x in _bits(call())]
        for threads in itertools.islice(itertools.cycle(THREADS), repeats):
            torch.set_num_threads(threads)
            found = _bits(call())
            differ += not all(torch.equal(x, y) for x, y in zip(first, found, strict=True))
    finally:
        torch.set_num_threads(before)
    return differ


def main(repeats: int, out: Path | None) -> int:
    rows, machine = [], report.circumstances("cpu")
    for dtype in DTYPES:
        for number, (name, call) in enumerate(calls(dtype)):
            start = time.perf_counter()
            differ = differing(call, repeats)
            row = machine | {
                "operator": name, "call": number, "dtype": str(dtype).removeprefix("torch."),
                "repeats": repeats, "by_threads": " ".join(map(str, THREADS)),
                "seconds": time.perf_counter() - start, "differ": differ,
            }  # fmt: skip
            print(f"{name} {row['dtype']}: {differ} of {repeats} differ, {row['seconds']:.1f} s")
            rows.append(row)
            if out is not None:
                report.save(rows, out, ())
    return int(any(row["differ"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make race", description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    sys.exit(main(asked.repeats, asked.out))
