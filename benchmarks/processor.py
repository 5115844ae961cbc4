"""The CPU kernels of every instruction set and bfloat16 product: `python -m benchmarks.processor`.

Loss and gradient of NT-Xent, every path in turn in one process. Rows go to results/processor.csv in
the place of what the same machine had measured before, a table to results/processor.md.
"""

import argparse

import torch

import fastcl.functional as F
from fastcl._processor import INSTRUCTION_SETS, PAIR_PRODUCTS, processor, use_processor

from . import report, tables
from .timing import interleaved, quantiles

ROWS, WIDTHS = 4096, (128, 512)
COLUMNS = "case", "path", "dtype", "median_ms", "q20_ms", "q80_ms", "samples", "rate"


def paths() -> dict[str, tuple[str | None, str | None, torch.dtype]]:
    """Instruction set, products and dtype by name, as far as this processor runs them."""
    wanted = {name: (name, None, torch.float32) for name in INSTRUCTION_SETS}
    wanted |= {f"{name} products": (None, name, torch.bfloat16) for name in PAIR_PRODUCTS}
    found = {}
    for name, path in wanted.items():
        try:
            use_processor(*path[:2])
        except RuntimeError:
            continue
        if "emulated" not in name:
            found[name] = path
    use_processor()
    return found


def measure(width: int, budget: float) -> list[dict]:
    """A row per path."""
    z = torch.randn(2, ROWS // 2, width)

    def step(path):
        instruction_set, products, dtype = path
        views = [x.to(dtype).requires_grad_() for x in z]

        def call():
            use_processor(instruction_set, products)
            F.nt_xent(*views).backward()

        return call

    known = paths()
    samples = interleaved({name: step(path) for name, path in known.items()}, "cpu", budget)
    use_processor()
    rows = []
    for name, (_, _, dtype) in known.items():
        median, low, high = quantiles(samples[name])
        rows.append({
            "case": f"NT-Xent {ROWS:,} x {width}", "path": name,
            "dtype": str(dtype).removeprefix("torch."), "median_ms": median * 1e3,
            "q20_ms": low * 1e3, "q80_ms": high * 1e3, "samples": len(samples[name]),
            "rate": 4.0 * ROWS**2 * width / median,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """Time and rate of every path, below each other for every machine."""
    parts = []
    for machine in report.by_machine(rows):
        cases = list(dict.fromkeys(row["case"] for row in machine))
        cells = {(row["path"], row["case"]): row for row in machine}
        lines = []
        for path in dict.fromkeys(row["path"] for row in machine):
            found = [cells[path, case] for case in cases]
            rates = (f"{float(r['rate']) / 1e9:,.0f} GFLOP/s" for r in found)
            times = [
                f"{tables.milliseconds(r)}, {rate}" for r, rate in zip(found, rates, strict=True)
            ]
            lines.append([path, found[0]["dtype"], *times])
        where = ", ".join(machine[0][key] for key in ("machine", "commit", "date"))
        head = f"{machine[0]['threads']} threads: {where}."
        parts.append(f"{tables.grid(['path', 'rows', *cases], lines)}\n\n{head}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processor", description=__doc__)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing per path")
    budget = parser.parse_args().budget
    print(processor())
    where, path = report.circumstances("cpu"), report.RESULTS / "processor.csv"
    new = [where | row for width in WIDTHS for row in measure(width, budget)]
    before = report.read(path) if path.exists() else []
    report.save(report.renew(new, before), path, COLUMNS)
    text = table(report.read(path))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
