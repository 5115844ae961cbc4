"""fastcl's methods beside lightly's own: `python -m benchmarks.accuracy [METHOD ...] [--epochs N]`.

Both start at the same weights and see the same crops of CIFAR-10 in the same order, under the same
optimiser; method and loss are each library's own. Accuracies of 20 nearest neighbours and of a
linear classifier on the whole test split, beside those of the untrained network. A run that was
killed goes on from its checkpoint in --folder; one that is finished is a row of
results/accuracy.csv and is not run again. `--time` measures steps instead, both in turns in one
process, for an idle machine: rows of results/accuracy_steps.csv. Rows go into docs/methods.md.
"""

import argparse
import statistics
import time
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path

import torch

from fastcl.pretrain.data import Images, load_images

from . import accuracy_table
from .accuracy_methods import CLASSES, Setting, backbone_of, contenders
from .accuracy_training import EVERY, Training, scores
from .report import ROOT, append, circumstances, read
from .report_methods import DATA

SECONDS, TURNS, WARM = 7.0, 5, 4  # of turns, at least so many, and turns before them


@cache
def everything() -> Images:
    return load_images(str(DATA / "cifar10" / "cifar10-jpeg.npz"))


def images_of(setting: Setting) -> Images:
    """The first of the training split and the whole test split."""
    found, n = everything(), setting.images
    return replace(found, train=found.train[:n], train_labels=found.train_labels[:n])


def beginning() -> dict:
    """Circumstances at the start: a row changes a file of the repository, and who goes on may be of
    another commit. Plain types, as a checkpoint takes no others."""
    return {k: str(v) if isinstance(v, str) else v for k, v in circumstances("cpu").items()}


def trained(setting: Setting, folder: Path, every: float = EVERY) -> dict:
    """A row: both methods, trained and judged."""
    images = images_of(setting)
    backbone, _ = backbone_of(setting, images.size)
    row = {f"untrained_{k}": v for k, v in scores(backbone, images).items()}
    begun = beginning()
    methods = contenders(setting, images.size)
    training = Training(setting, methods, images)
    begun = training.run(folder / f"{setting.name}.pt", begun, every)
    for name, runner in training.runners.items():
        row |= {f"{name}_{k}": v for k, v in scores(runner.method.backbone, images).items()}
        row |= {f"{name}_first": runner.losses[0], f"{name}_last": runner.losses[-1]}
    return asdict(setting) | {"tested": len(images.test)} | row | begun


def timed(setting: Setting) -> dict:
    """A row: milliseconds of a step of both, and the ratio of a turn with its quantiles."""
    images, begun = images_of(setting), beginning()
    training = Training(setting, contenders(setting, images.size), images)
    turns, found = training.turns(), []
    list(islice(turns, WARM))
    started = time.perf_counter()
    while len(found) < TURNS or time.perf_counter() - started < SECONDS:
        found.append(next(turns))
    ratios = [turn["lightly"] / turn["fastcl"] for turn in found]
    cuts = statistics.quantiles(ratios, n=5)
    row = {f"{k}_ms": 1e3 * statistics.median(turn[k] for turn in found) for k in found[0]}
    row |= {"ratio": statistics.median(ratios), "q20": cuts[0], "q80": cuts[3]}
    return asdict(setting) | {"turns": len(found)} | row | begun


def finished(path: Path, setting: Setting) -> bool:
    wanted = {k: str(v) for k, v in asdict(setting).items()}
    return path.exists() and any(wanted.items() <= row.items() for row in read(path))


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("methods", nargs="*", choices=[[], *CLASSES], metavar="METHOD",
                        help=f"of {', '.join(CLASSES)}; all without one")  # fmt: skip
    parser.add_argument("--images", type=int, default=10_000, help="of 50,000")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--backbone", default="six", help="six, small, resnet18, ...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--time", action="store_true", help="measure steps, train nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "accuracy")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between checkpoints")
    parser.add_argument("--rows", type=Path, default=accuracy_table.ROWS.parent)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = args.rows / (accuracy_table.STEPS if args.time else accuracy_table.ROWS).name
    for method in args.methods or CLASSES:
        setting = Setting(
            method, args.images, args.epochs, backbone=args.backbone, seed=args.seed
        )  # fmt: skip
        if finished(path, setting):
            continue
        row = timed(setting) if args.time else trained(setting, args.folder, args.every)
        append(row, path)
        print(row, flush=True)
    if args.rows == accuracy_table.ROWS.parent:
        accuracy_table.write()


if __name__ == "__main__":
    main()
