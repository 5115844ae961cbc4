"""The two short tables of the README, from the rows: speed, and what `fastcl.patch` replaces.

`python -m benchmarks.report cpu` and `python -m benchmarks.migration --show` write them.
"""

from . import tables
from .tables import Row

# One size of each kind of loss, of those that benchmarks/guard.py holds to a ratio, and the
# smallest, where all of it is overhead; every other size is in docs/results.md.
SHOWN = (
    "NT-Xent 128 x 128", "NT-Xent 8,192 x 128", "SupCon 4,096 x 128", "CLIP 4,096 x 512",
    "SigLIP 4,096 x 512", "InfoNCE 4,096 x 512", "MoCo 256 x 65,536 x 128", "SwAV 2 x 512 x 3,000",
    "momentum ResNet-50 fp32",
)  # fmt: skip


def speed(rows: list[Row]) -> str:
    """fastcl beside the others on the machine that was measured last."""
    last = max(rows, key=lambda row: row["date"])
    mine = [row for row in rows if row["machine"] == last["machine"]]
    cases = {name: found for (name, _), found in tables.by_case(mine).items()}
    lines = []
    for name in SHOWN:
        found = cases[name]
        ours = found["fastcl"]
        cells = [name, tables.milliseconds(ours)]
        cells += [tables.times(found.get(v), ours) for v in ("plain", "compiled")]
        cells += [tables.fastest(found, ours), tables.megabytes(ours)]
        lines.append([*cells, tables.megabytes(found.get("plain"))])
    heads = ["case", "fastcl", "plain", "compiled", "fastest other library"]
    text = tables.grid([*heads, "memory: fastcl", "plain"], lines)
    threads, torch, date = last["threads"], last["torch"], last["date"]
    return (
        f"{text}\n\n{last['machine']}, {threads} threads, torch {torch}, {date}; forward and "
        "backward; the others as multiples of fastcl's time, memory above inputs and gradients.\n"
    )


def replaced(rows: list[Row]) -> str:
    """One line per library: what is replaced there, and the least and the most that it gains."""
    libraries: dict[str, list[tuple[Row, Row]]] = {}
    for original, ours in zip(rows[::2], rows[1::2], strict=True):
        libraries.setdefault(original["library"], []).append((original, ours))
    lines = []
    for library, pairs in libraries.items():
        names = dict.fromkeys(x["name"].removesuffix(", memory bank") for x, _ in pairs)
        classes = ", ".join(f"`{name}`" for name in ", ".join(names).split(", "))
        lines.append([library, classes, _span(pairs, "median_ms"), _span(pairs, "extra_mb")])
    runs = dict.fromkeys(f"{r['machine']}, torch {r['torch']}, {r['date']}" for r in rows)
    text = tables.grid(["library", "replaced", "time", "memory"], lines)
    return (
        f"{text}\n\nThe original's, as multiples of fastcl's, least and most: {'; '.join(runs)}; "
        "memory with the gradients.\n"
    )


def _span(pairs: list[tuple[Row, Row]], key: str) -> str:
    """Original over fastcl, where both have a value that is no rounding of nothing."""
    values = [(float(x[key]), float(y[key])) for x, y in pairs if x[key] and y[key]]
    found = sorted(x / y for x, y in values if y > 0.1)
    least, most = (f"{x:.0f}x" if x >= 20 else f"{x:.1f}x" for x in (found[0], found[-1]))
    return least if least == most else f"{least} to {most}"
