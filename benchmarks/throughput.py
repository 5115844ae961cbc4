"""How fast images reach a network: `python -m benchmarks.throughput [--cases NAME...]`.

folder: 100,000 JPEG files, 5 GB of pixels: the time to the first step of `fastcl pretrain`, and the
peak of its memory beside the same run on 200 of them. loader: images/s of `fastcl.data.Loader` over
photographs of 500 x 375 with SimCLR's two views, beside the same decoding and views back to back on
as many threads, which never wait for each other, in turns. loader-SIDE, METHOD-SIDE: the loader
alone and whole steps of ResNet-18, beside lightly's pipeline and torchvision in a DataLoader where
these are installed; fastcl keeps images of 32 pixels in memory, as it does by default. memory: a
step whose memory is kept for the next, as in `fastcl pretrain`, and one that gives it back. Rows go
to results/throughput.csv.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fastcl import views
from fastcl.data import Folder, Loader, Order
from fastcl.data.threads import alone

from . import kept_memory, throughput_steps
from .pictures import make_folder
from .report import RESULTS, ROOT, circumstances, read, renew, save

COLUMNS = "case", "figure", "value", "unit"
FILES, SIDE = 100_000, 128
PHOTOGRAPHS, BATCH, VIEW, EPOCHS, TURNS = 512, 64, 224, 16, 5
FEW = 8  # images of a call, back to back


def first_step(data: Path, *more: str, watch: float = 8.0) -> tuple[float, float]:
    """Seconds from the start of the command to the checkpoint of its first step, and the peak of
    its memory in MB until some seconds later."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "fastcl.cli", "pretrain", "--method", "simclr", "--backbone",
            "small", "--batch-size", "16", "--devices", "1", "--checkpoint-every", "1", "--data",
            str(data), "--out", folder, *more,
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while not (Path(folder) / "checkpoint.pt").exists() and process.poll() is None:
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        status, peak = Path(f"/proc/{process.pid}/status"), 0.0
        while process.poll() is None and time.perf_counter() - started < seconds + watch:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            peak = float(lines.get("VmHWM", "0 kB").split()[0]) / 1e3
            time.sleep(0.1)
        process.terminate()
        process.wait()
    return seconds, peak


def folder_case(root: Path) -> list[tuple]:
    data = make_folder(root / "many", FILES, SIDE, SIDE)
    few_seconds, few = first_step(data, "--limit", "200")
    seconds, peak = first_step(data)
    return [
        (f"{FILES:,} files", "first step after", seconds, "s"),
        (f"{FILES:,} files", "first step of 200 of them after", few_seconds, "s"),
        (f"{FILES:,} files", "memory above 200 of them", peak - few, "MB"),
    ]


def back_to_back(source: Folder, made: views.Views) -> float:
    """Images/s of files to views, a few in a call and one call after the other on every core."""

    def work(index: np.ndarray) -> None:
        made.load([Path(source.root, source.names[i]) for i in index], threads=1)

    order = np.tile(np.arange(len(source)), EPOCHS)
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=alone) as pool:
        started = time.perf_counter()
        list(pool.map(work, np.split(order, len(order) // FEW)))
        return len(order) / (time.perf_counter() - started)


def loaded(source: Folder, made: views.Views) -> float:
    """The same through the loader, after an epoch in which the memory of its batches is made."""
    order = order_of(source)
    batches = Loader(source, order, made).batches(0, 0, 1 + EPOCHS)
    for _ in range(order.steps):
        next(batches)
    started = time.perf_counter()
    count = sum(len(batch.index) for batch in batches)
    return count / (time.perf_counter() - started)


def order_of(source: Folder) -> Order:
    return Order(len(source), BATCH, seed=0)


def loader_case(root: Path) -> list[tuple]:
    source = Folder(photographs(root, VIEW))
    made = views.SimCLR(VIEW)
    alone, through = [], []
    for _ in range(TURNS):
        alone.append(back_to_back(source, made))
        through.append(loaded(source, made))
    case = f"500 x 375 to two views of {VIEW}, {torch.get_num_threads()} threads"
    ratios = [b / a for a, b in zip(alone, through, strict=True)]
    return [
        (case, "back to back", float(np.median(alone)), "images/s"),
        (case, "loader", float(np.median(through)), "images/s"),
        (case, "loader over back to back", float(np.median(ratios)), ""),
    ]


def photographs(root: Path, side: int) -> Path:
    """Files of which views of a side are made: of small ones, as CIFAR has them."""
    if side < 96:
        return make_folder(root / f"small-{side}", 4 * PHOTOGRAPHS, side, side)
    return make_folder(root / "photographs", PHOTOGRAPHS, 375, 500)


def _loaders(root: Path, side: int) -> list[tuple]:
    return throughput_steps.loaders(photographs(root, side), side)


def _steps(root: Path, method: str, side: int) -> list[tuple]:
    return throughput_steps.steps(photographs(root, side), method, side)


CASES = {"folder": folder_case, "loader": loader_case, "memory": lambda _: kept_memory.measured()}
CASES |= {f"loader-{s}": partial(_loaders, side=s) for s in throughput_steps.BATCHES}
CASES |= {
    name: partial(_steps, method=m, side=s) for name, (m, s) in throughput_steps.CASES.items()
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--pictures", type=Path, default=ROOT / "build" / "pictures")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    path = RESULTS / "throughput.csv"
    # The rows change a file of the repository: asked for later, it would always be dirty.
    commit = {"commit": circumstances("cpu")["commit"]}
    for name in arguments.cases:
        where = circumstances("cpu") | commit
        found = CASES[name](arguments.pictures)
        print(*(" ".join(map(str, row)) for row in found), sep="\n", flush=True)
        rows = [where | dict(zip(COLUMNS, row, strict=True)) for row in found]
        save(renew(rows, read(path) if path.exists() else []), path, COLUMNS)


if __name__ == "__main__":
    main()
