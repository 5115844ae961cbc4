"""Images per second of whole steps of pretraining, plain and as one CUDA graph.

`python -m benchmarks.graphed_steps --out OUTDIR [--device cuda] [--seconds S] [--batch N]`

SimCLR and MoCo with ResNet-18 on images in memory of 32 and 224 pixels: views, both forwards, loss,
backward, optimiser, queue and twin. Rows go to OUTDIR/steps.csv, each as soon as it is made.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from lightning_fabric import Fabric

from fastcl.pretrain.graph import PLAIN
from fastcl.pretrain.images import Images
from fastcl.pretrain.recipe import resolve
from fastcl.pretrain.run import Run

from .report import append, circumstances

BATCH, IMAGES = 256, 4  # images: how many batches are in memory
COLUMNS = "case", "variant", "value", "unit"
CASES = [(method, side) for side in (32, 224) for method in ("simclr", "moco")]


def run_of(method: str, side: int, batch: int, device: str, graphed: bool) -> Run:
    pixels = torch.randint(256, (IMAGES * batch, 3, side, side), dtype=torch.uint8)
    images = Images("noise", "photographs", pixels, pixels[:2], None, None, ())
    precision = "bf16" if device == "cuda" else "32"
    config = resolve(
        images, method=method, data="noise", precision=precision, devices=1, seed=0,
        backbone="resnet18", batch_size=batch, epochs=1, cuda_graph=graphed,
    )  # fmt: skip
    fabric = Fabric(accelerator=device, devices=1, precision=
                    "bf16-mixed" if device == "cuda" else "32-true")  # fmt: skip
    fabric.launch()
    return Run(config, images, Path(tempfile.mkdtemp()), fabric)


def rate(run: Run, seconds: float) -> float:
    """Images per second, once the step is captured."""
    wait = torch.cuda.synchronize if run.fabric.device.type == "cuda" else lambda: None
    warm = PLAIN + 2 if run.fabric.device.type == "cuda" else 1
    for k in range(warm):
        run._step(run.feed.batch(k // run.steps, k % run.steps), 0.01)
    wait()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for k in range(run.steps):
            run._step(run.feed.batch(count, k), 0.01)
        wait()
        count += 1
    return count * run.steps * run.config.batch_size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=BATCH)
    arguments = parser.parse_args()
    where = circumstances(arguments.device)
    for method, side in CASES[: None if arguments.device == "cuda" else 2]:
        for variant, graphed in (("fastcl", False), ("fastcl, CUDA graph", True)):
            run = run_of(method, side, arguments.batch, arguments.device, graphed)
            case = f"{method}, ResNet-18 at {side}, batch {arguments.batch}"
            found = (case, variant, rate(run, arguments.seconds), "images/s")
            print(*found, flush=True)
            append(where | dict(zip(COLUMNS, found, strict=True)), arguments.out / "steps.csv")


if __name__ == "__main__":
    main()
