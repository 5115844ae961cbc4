"""Which tile is fastest: `python -m benchmarks.tune [--cases NAME] [--budget SECONDS]`.

Every candidate takes the place of its tile in contrast_config for a whole step, which is predicted
from machine code and, where a GPU is, measured, all candidates of a case in turn. Rows go to
results/tune.csv; what wins is written into contrast_config.py by hand, with its row.
"""

import argparse
import contextlib
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch

from fastcl.kernels import contrast_config as config
from fastcl.kernels.contrast_config import Tile

from . import report
from .cases import Case
from .launches import of_step
from .model import predict
from .predict import inputs
from .suites import SUITES
from .timing import interleaved, quantiles
from .variants import OURS

PLACES = config.Tiles._fields
# By the widest d a line of the table serves. Blocks of four warps leave room for a second one,
# whose product hides this one's epilogue; wide tiles read less.
CANDIDATES: dict[str, dict[int | None, tuple[Tile, ...]]] = {
    "sums": {
        128: (
            Tile(128, 128, 128, 8, 3), Tile(128, 64, 128, 4, 3), Tile(128, 64, 128, 8, 3),
            Tile(128, 256, 128, 8, 2),
        ),
        256: (Tile(128, 128, 256, 8, 2), Tile(128, 64, 256, 4, 2), Tile(128, 128, 64, 4, 3)),
        None: (
            Tile(128, 128, 64, 8, 3), Tile(128, 128, 64, 4, 3), Tile(128, 256, 64, 8, 3),
            Tile(256, 128, 64, 8, 3),
        ),
    },
    "own": {
        128: (
            Tile(128, 64, 128, 8, 3), Tile(64, 64, 128, 4, 3), Tile(64, 64, 128, 4, 2),
            Tile(128, 64, 128, 8, 2),
        ),
        256: (Tile(128, 32, 256, 8, 2), Tile(128, 64, 256, 8, 2), Tile(64, 64, 256, 4, 2)),
    },
    "frozen": {
        128: (Tile(128, 128, 128, 8, 2), Tile(64, 128, 128, 4, 2), Tile(64, 64, 128, 4, 3)),
        256: (Tile(128, 64, 256, 8, 2), Tile(64, 64, 256, 4, 2), Tile(128, 32, 256, 8, 2)),
    },
    "weights": {
        None: (
            Tile(128, 256, 64, 8, 3), Tile(128, 128, 64, 8, 3), Tile(256, 128, 64, 8, 3),
            Tile(128, 128, 64, 4, 3),
        ),
    },
}  # fmt: skip


@contextlib.contextmanager
def replaced(place: str, tile: Tile) -> Iterator[None]:
    """The tile in its place of the plan, whatever the width."""
    plan = config.tiles

    def tiles(*arguments) -> config.Tiles:
        return plan(*arguments)._replace(**{place: tile})

    with mock.patch.object(config, "tiles", tiles):
        yield


def candidates(case: Case) -> Iterator[tuple[str, Tile]]:
    """Places and tiles that the case uses at its width."""
    wide = case.d > config.FLASH_WIDTH
    if case.loss == "moco":
        places = ("sums", "weights") if wide else ("frozen",)
    else:
        places = ("sums", "weights") if wide else ("sums", "own")
    for place in places:
        lines = CANDIDATES[place]
        width = next((w for w in lines if w is not None and case.d <= w), None)
        yield from ((place, tile) for tile in lines.get(width, ()))


def predicted(case: Case, place: str, tile: Tile) -> float | str:
    """Milliseconds of a step, or what the compiler says."""
    tensors, function = inputs(case), OURS.build(case)
    try:
        with replaced(place, tile):
            notes = of_step(lambda: case.step(function, tensors))
        return sum(predict(x).seconds for x in notes) * 1e3
    except Exception as reason:  # a tile that does not compile is an answer too
        return f"{type(reason).__name__}: {str(reason).splitlines()[0][:60]}"


def measured(case: Case, tried: list[tuple[str, Tile]], budget: float) -> dict[tuple, float]:
    """Milliseconds of a step on the GPU, of every candidate that runs."""
    tensors, function = case.inputs("cuda"), OURS.build(case)

    def call(place: str, tile: Tile) -> Callable[[], object]:
        def step() -> None:
            with replaced(place, tile):
                case.step(function, tensors)

        return step

    calls = {}
    for place, tile in tried:
        step = call(place, tile)
        with contextlib.suppress(Exception):  # too much shared memory, say
            step()
            torch.cuda.synchronize()
            calls[place, tile] = step
    samples = interleaved(calls, "cuda", budget)
    return {key: quantiles(times)[0] * 1e3 for key, times in samples.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--cases", default="", help="only those whose name contains this")
    parser.add_argument("--budget", type=float, default=0.3, help="seconds of timing per tile")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder of the results")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    where, rows = report.circumstances("cuda" if gpu else "cpu"), []
    fused = ("nt_xent", "clip", "moco")
    for case in SUITES["gpu"]:
        if case.loss not in fused or options.cases not in case.name:
            continue
        tried = list(candidates(case))
        times = measured(case, tried, options.budget) if gpu else {}
        for place, tile in tried:
            row = {
                "case": case.name, "place": place, "tile": "x".join(map(str, tile)),
                "predicted_ms": predicted(case, place, tile),
                "measured_ms": times.get((place, tile), ""),
            }  # fmt: skip
            rows.append(where | row)
            print(*row.values(), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "tune.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
