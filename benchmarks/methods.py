"""What every method makes of the same backbone: `python -m benchmarks.methods [NAME ...]`.

Images: ResNet-18 with the stem of stride 4, on 5,000 images of CIFAR-10; accuracy of 20 nearest
neighbours before and after, 2,000 test images against the 5,000; `dim-8x8` trains the encoder of
its own paper. Sentences: a small transformer on the training sentences of STS-B; Spearman's
correlation on its test pairs before and after. The effective rank of the features says whether they
collapsed. A finished method is a row of results/methods.csv and is not run again; one that fails is
reported and skipped. Every core has a process of its own: one thread each wastes less than two for
one. At the end the rows go to results/methods.md and into the table of docs/methods.md.
"""

import argparse
import multiprocessing
import os
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from . import report_methods
from .report import circumstances
from .report_methods import Entry, append, finished


def entries() -> list[Entry]:
    """All lines in the order of the table. A family of methods adds its list here."""
    from .image_methods import IMAGE_ENTRIES
    from .text_methods import TEXT_ENTRIES

    return [*IMAGE_ENTRIES, *TEXT_ENTRIES]


def timed(entry: Entry) -> dict:
    """A row of the table, measured in this process."""
    started = time.perf_counter()
    row = {"method": entry.name, "family": entry.family, **entry.run()}
    return row | {"seconds": time.perf_counter() - started} | circumstances("cpu")


def main() -> None:
    known = entries()
    parser = argparse.ArgumentParser("python -m benchmarks.methods", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods; all without one")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)),
                        help="processes that share the cores; as many unless said")  # fmt: skip
    args = parser.parse_args()
    wanted = args.names or [entry.name for entry in known]
    unknown = sorted(set(wanted) - {entry.name for entry in known})
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are "
                         f"{', '.join(entry.name for entry in known)}")  # fmt: skip
    done = finished()
    waiting = [entry for entry in known if entry.name in wanted and entry.name not in done]
    # The rows change a file of the repository: asked for later, it would always be dirty.
    commit = circumstances("cpu")["commit"]
    failed = []
    with ProcessPoolExecutor(
        args.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, torch.get_num_threads() // args.workers),),
    ) as pool:
        started = {pool.submit(timed, entry): entry for entry in waiting}
        for future in as_completed(started):
            try:
                row = future.result()
            except Exception:  # whatever it is, the other methods are to run
                traceback.print_exc()
                failed.append(started[future].name)
                continue
            append({**row, "commit": commit, "workers": args.workers})
            print(f"{row['method']}: {row['before']:.3f} -> {row['after']:.3f}, rank "
                  f"{row['rank_before']:.0f} -> {row['rank_after']:.0f}, loss "
                  f"{row['loss_first']:.3f} -> {row['loss_last']:.3f}, {row['seconds']:.0f} s",
                  flush=True)  # fmt: skip
    if report_methods.RESULTS_CSV.exists():
        report_methods.write_table([entry.name for entry in known])
    report_methods.write_index()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
