"""What every method makes of the same backbone: `python -m benchmarks.methods [NAME ...]`.

Images: ResNet-18 with the stem of stride 4, on 5,000 images of CIFAR-10; accuracy of 20 nearest
neighbours before and after, 2,000 test images against the 5,000. Sentences: a small transformer on
the training sentences of STS-B; Spearman's correlation on its test pairs before and after. The
effective rank of the features says whether they collapsed. A finished method is a row of
results/methods.csv and is not run again; one that fails is reported and skipped. At the end the
rows go to results/methods.md and into the table of docs/methods.md.
"""

import sys
import time
import traceback

from . import report_methods
from .report import circumstances
from .report_methods import Entry, append, finished


def entries() -> list[Entry]:
    """All lines in the order of the table. A family of methods adds its list here."""
    from .image_methods import IMAGE_ENTRIES
    from .text_methods import TEXT_ENTRIES

    return [*IMAGE_ENTRIES, *TEXT_ENTRIES]


def main() -> None:
    known = entries()
    wanted = sys.argv[1:] or [entry.name for entry in known]
    unknown = sorted(set(wanted) - {entry.name for entry in known})
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are "
                         f"{', '.join(entry.name for entry in known)}")  # fmt: skip
    done, failed = finished(), []
    for entry in known:
        if entry.name not in wanted or entry.name in done:
            continue
        started = time.perf_counter()
        try:
            row = entry.run()
        except Exception:  # whatever it is, the other methods are to run
            traceback.print_exc()
            failed.append(entry.name)
            continue
        row |= {"seconds": time.perf_counter() - started}
        append({"method": entry.name, "family": entry.family, **row, **circumstances("cpu")})
        print(f"{entry.name}: {row['before']:.3f} -> {row['after']:.3f}, rank "
              f"{row['rank_before']:.0f} -> {row['rank_after']:.0f}, loss {row['loss_first']:.3f} "
              f"-> {row['loss_last']:.3f}, {row['seconds']:.0f} s", flush=True)  # fmt: skip
    if report_methods.RESULTS_CSV.exists():
        report_methods.write_table([entry.name for entry in known])
    report_methods.write_index()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
