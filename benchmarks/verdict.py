"""A line per case of a GPU run: `python -m benchmarks.verdict FOLDER`, with the rows of the run.

Measured (the graph where it is faster), predicted, the limit at the rate measured beside it, what
was wanted, the nearest rival, and what that makes of the case.
"""

import sys
from pathlib import Path

from . import report
from .predict import KERNELS, WANTED

PRODUCTS = ("nvjet", "gemm", "cutlass")  # in the names of cuBLAS's kernels
Rows = dict[str, dict[str, str]]


def verdict(case: str, rows: Rows, foretold: dict[str, float]) -> str:
    """`rows` by variant, fastcl among them."""
    timed = {name: row for name, row in rows.items() if row["median_ms"]}
    ours = {n: float(r["median_ms"]) for n, r in timed.items() if n.startswith("fastcl")}
    rivals = {n: float(r["median_ms"]) for n, r in timed.items() if not n.startswith("fastcl")}
    if not ours:
        return f"{case}: not measured; {rows['fastcl']['note'] if 'fastcl' in rows else ''}"
    best = min(ours, key=ours.get)
    row, time = timed[best], ours[best]
    limit = float(row["work"]) / float(row["ceiling"]) * 1e3
    parts = [f"{time:.4g} ms"]
    if best != "fastcl" and "fastcl" in ours:
        parts.append(f"({best.removeprefix('fastcl, ')}; eager {ours['fastcl']:.4g})")
    parts.append(f"predicted {foretold[case]:.4g}" if case in foretold else "predicted -")
    parts.append(f"limit {limit:.4g} ({limit / time:.0%})")
    if rivals:
        nearest = min(rivals, key=rivals.get)
        parts.append(f"{nearest} {rivals[nearest]:.4g} ({rivals[nearest] / time:.2f}x)")
    else:
        parts.append("no rival ran")
    if any("WRONG" in r["note"] for n, r in rows.items() if n.startswith("fastcl")):
        parts.append("WRONG")
    elif case in WANTED:
        wanted = WANTED[case]
        met = "met" if time <= wanted else f"missed by {time / wanted - 1:.0%}"
        parts.append(f"wanted {wanted:.4g}: {met}")
    if rivals and min(rivals.values()) < time:
        parts.append("SLOWER than a rival")
    return f"{case}: {', '.join(parts)}"


def main() -> int:
    folder = Path(sys.argv[1])
    foretold, by_case = report.predicted(), {}
    ahead = {(r["case"], r["kernel"]): r for r in report.read(KERNELS)} if KERNELS.exists() else {}
    for case in {case for case, _ in ahead} - foretold.keys():
        foretold[case] = sum(float(r["us"]) for (c, _), r in ahead.items() if c == case) / 1e3
    if (folder / "times.csv").exists():
        for row in report.read(folder / "times.csv"):
            kept = by_case.setdefault(row["case"], {})
            if row["variant"] not in kept or row["mode"] == "times":
                kept[row["variant"]] = row
    if (folder / "kernels.csv").exists():
        for row in report.read(folder / "kernels.csv"):
            if float(row["us"]) < 1:
                continue
            guess = ahead.get((row["case"], row["kernel"]))
            if any(word in row["kernel"] for word in PRODUCTS):
                guess = ahead.get((row["case"], "addmm.dtype_out"))  # all of them together
            guess = f"{float(guess['us']):.4g} us, {guess['bound']}" if guess else "-"
            kernel = f"{row['kernel'][:48]} x {row['calls']}"
            print(f"{row['case']}, {row['step']}: {kernel}: {row['us']} us, predicted {guess}")
    for case, rows in by_case.items():
        print(verdict(case, rows, foretold))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
