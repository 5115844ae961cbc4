"""Hold fastcl to its speed on a CPU: `python -m benchmarks.guard`, non-zero where it falls short.

A short interleaved run of the main cases gives fresh ratios: a rival's time over fastcl's. They are
compared with the wanted ratios below, and with the committed rows where those come from the same
kind of machine. For an idle machine: a benchmark, not a test.
"""

import argparse
from collections.abc import Iterable
from typing import NamedTuple

from fastcl._processor import processor

from . import report, tables
from .measure import measure, peak_elsewhere
from .suites import SUITES

MOST_MEMORY = 16.0  # MB above inputs and gradients: a few tiles per thread and O(n) sums
KEPT = 0.8  # of a committed ratio: repeated runs of one commit differ by 10 % on a quiet machine


class Wanted(NamedTuple):
    case: str
    rival: str
    ratio: float
    reason: str
    products: str = ""  # where the processor multiplies bfloat16 rows so, see fastcl/_processor.py

    @property
    def here(self) -> bool:
        found = processor()
        return self.products in ("", "widened" if found is None else found.pair_products)


# The products alone would take 186 ms (NT-Xent of width 128), 743 ms (512), 371 ms (CLIP) and 46 ms
# (MoCo) at the 185 GFLOP/s of two AVX-512 cores; plain PyTorch takes 1,077, 2,200, 559 and 209 ms.
HALF_TRIANGLE = "2 products instead of 3, and no matrix in memory"
NOWHERE_SLOWER = "nowhere slower than plain PyTorch"
WANTED = (
    Wanted("NT-Xent 128 x 128", "plain", 1.0, NOWHERE_SLOWER),
    Wanted("NT-Xent 8,192 x 128", "plain", 4.8, HALF_TRIANGLE),
    Wanted("NT-Xent 8,192 x 128", "compiled", 2.4, HALF_TRIANGLE),
    Wanted("NT-Xent 8,192 x 128", "lightly", 9.0, HALF_TRIANGLE),
    Wanted("NT-Xent 8,192 x 512", "plain", 2.5, HALF_TRIANGLE),
    Wanted("NT-Xent 8,192 x 512", "bf16", 2.5, "products are 3 to 4.5 times as fast", "AMX"),
    Wanted("NT-Xent 8,192 x 512", "bf16", 1.5, "two products an instruction", "AVX-512 BF16"),
    Wanted("SupCon 4,096 x 128", "plain", 1.0, NOWHERE_SLOWER),
    Wanted("CLIP 4,096 x 512", "plain", 1.3, "4 products instead of 3, but no matrix in memory"),
    Wanted("CLIP 4,096 x 512", "open_clip", 1.9, "it forms the logits of both directions"),
    Wanted("SigLIP 4,096 x 512", "plain", 1.0, NOWHERE_SLOWER),
    Wanted("InfoNCE 4,096 x 512", "plain", 1.0, NOWHERE_SLOWER),
    Wanted("MoCo 256 x 65,536 x 128", "plain", 3.5, "the gradient is finished in the forward"),
)


class Verdict(NamedTuple):
    case: str
    what: str
    fresh: str
    bound: str
    passed: bool | None  # None: not checked
    reason: str


def _ratios(rows: Iterable[dict]) -> dict[tuple[str, str], float]:
    """Every variant's time over fastcl's; for bfloat16 rows, float32's over bfloat16's."""
    timed = {(r["case"], r["variant"]): float(r["median_ms"]) for r in rows if r.get("median_ms")}
    found = {k: time / timed[k[0], "fastcl"] for k, time in timed.items() if k[1] != "fastcl"}
    halves = {(c, v): r for (c, v), r in found.items() if v == "fastcl bf16"}
    return found | {(case, "bf16"): 1 / r for (case, _), r in halves.items()}


def _against_wanted(fresh: dict, bfloat16: bool, wanted: Iterable[Wanted]) -> list[Verdict]:
    verdicts = []
    for case, rival, ratio, reason, _ in wanted:
        bound = f"{ratio:.1f}x"
        if rival == "bf16" and not bfloat16:
            none = "the processor has no bfloat16 products"
            verdicts.append(Verdict(case, rival, "-", bound, None, none))
        elif (case, rival) not in fresh:
            verdicts.append(Verdict(case, rival, "-", bound, None, "not measured"))
        else:
            got = fresh[case, rival]
            verdicts.append(Verdict(case, rival, f"{got:.2f}x", bound, got >= ratio, reason))
    return verdicts


def verdicts(rows: list[dict], committed: list[dict], wanted: Iterable[Wanted]) -> list[Verdict]:
    """Fresh rows against the wanted ratios, the committed rows, and the bound on memory."""
    first, fresh = rows[0], _ratios(rows)
    found = _against_wanted(fresh, first["bf16"] == "yes", wanted)
    kind = first["machine"], str(first["threads"])
    before = _ratios(r for r in committed if (r["machine"], str(r["threads"])) == kind)
    for (case, rival), ratio in before.items():
        if (case, rival) in fresh:
            got, bound = fresh[case, rival], KEPT * ratio
            found.append(
                Verdict(case, rival, f"{got:.2f}x", f"{bound:.2f}x", got >= bound,
                        f"{KEPT:.0%} of the committed {ratio:.2f}x")
            )  # fmt: skip
    for row in rows:
        if row["variant"] == "fastcl" and row["extra_mb"] not in ("", None):
            memory = float(row["extra_mb"])
            found.append(
                Verdict(row["case"], "memory", tables.megabytes(row), f"{MOST_MEMORY:.0f} MB",
                        memory <= MOST_MEMORY, "linear in the rows")
            )  # fmt: skip
    return found


def table(found: list[Verdict]) -> str:
    words = {True: "ok", False: "FALLS SHORT", None: "not checked"}
    lines = [[v.case, v.what, v.fresh, v.bound, words[v.passed], v.reason] for v in found]
    return tables.grid(["case", "against", "fresh", "bound", "", "reason"], lines)


def run(budget: float) -> list[dict]:
    """Fresh rows of the cases and rivals that the table names."""
    where, rows = report.circumstances("cpu"), []
    for index, case in enumerate(SUITES["cpu"]):
        rivals = {w.rival for w in WANTED if w.case == case.name}
        if not rivals:
            continue
        only = ("fastcl", *rivals, *(("fastcl bf16",) if "bf16" in rivals else ()))
        peak = peak_elsewhere("cpu", index, "cpu")
        new = measure(
            case, "cpu", libraries=True, only=only, budget=budget,
            memory=lambda c, name, peak=peak: peak(c, name) if name == "fastcl" else "",
        )  # fmt: skip
        print(case.name, *map(report.line, new), sep="\n", flush=True)
        rows += [{**where, **row} for row in new]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds per variant and case")
    rows = run(parser.parse_args().budget)
    path = report.RESULTS / "cpu.csv"
    wanted = [w for w in WANTED if w.here]
    found = verdicts(rows, report.read(path) if path.exists() else [], wanted)
    print(f"\n{table(found)}")
    if rows[0]["load"] > rows[0]["cores"] / 4:
        print(f"\nThe machine was busy (load {rows[0]['load']:.1f}): run this on an idle one.")
    return 1 if any(v.passed is False for v in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
