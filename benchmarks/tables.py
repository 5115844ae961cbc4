"""Rows of results as Markdown: one line per case, then one per library, or a scaling table."""

import math

TORCH = ("plain", "compiled", "chunked", "linear_cross_entropy", "_foreach")
Row = dict[str, str]


def is_ours(name: str) -> bool:
    return name.startswith("fastcl")


def is_library(name: str) -> bool:
    return not is_ours(name) and name.removesuffix(" bf16") not in TORCH


def by_case(rows: list[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Rows of every case by variant; a case is a name and the dtype of its fastcl row."""
    cases: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["variant"] == "fastcl":
            key = row["case"], row["dtype"]
        cases.setdefault(key, {})[row["variant"]] = row
    return cases


def milliseconds(row: Row) -> str:
    time = float(row["median_ms"])
    return f"{time:,.0f} ms" if time >= 100 else f"{time:.3g} ms"


def rate(row: Row) -> str:
    """In the unit that shows two to four digits before the point."""
    value, unit = float(row["rate"]), "B/s" if row["measure"] == "B" else "FLOP/s"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def megabytes(row: Row | None) -> str:
    if not row or not row["extra_mb"]:
        return "-"
    value = float(row["extra_mb"])
    return f"{value:,.0f} MB" if value >= 9.95 else f"{value:.1f} MB"


def times(row: Row | None, ours: Row) -> str:
    """How many times fastcl's time it takes."""
    if not row or not row["median_ms"]:
        return "-"
    return f"{float(row['median_ms']) / float(ours['median_ms']):.1f}x"


def grid(heads: list[str], lines: list[list[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def fastest(variants: dict[str, Row], ours: Row) -> str:
    """The fastest other library of a case, with its name."""
    timed = [r for r in variants.values() if is_library(r["variant"]) and r["median_ms"]]
    if not timed:
        return "-"
    best = min(timed, key=lambda r: float(r["median_ms"]))
    return f"{times(best, ours)} {best['variant']}"


def title(key: tuple[str, str], dtypes: set[str]) -> str:
    """The case; with its dtype only where others of the table have another one."""
    name, dtype = key
    short = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}.get(dtype, dtype)
    return name if len(dtypes) == 1 or name.startswith("momentum") else f"{name}, {short}"


def headline(rows: list[Row], predicted: dict[str, float] | None = None) -> str:
    """fastcl's time per case, and how many times as long PyTorch and the best library take.

    `predicted`: milliseconds by case, shown beside the measured ones where there are any.
    """
    cases = by_case(rows)
    dtypes = {dtype for _, dtype in cases}
    shown = [v for v in TORCH if any(v in c and c[v]["median_ms"] for c in cases.values())]
    names = {"linear_cross_entropy": "`F.linear_ cross_entropy`", "_foreach": "`_foreach_`"}
    foretold = predicted or {}
    foretold = any(name in foretold for name, _ in cases) and foretold
    heads = ["case", "fastcl", *["predicted"] * bool(foretold), "rate", "of the ceiling"]
    heads += [names.get(v, v) for v in shown]
    some = any(is_library(r["variant"]) and r["median_ms"] for r in rows)
    heads += ["fastest other library"] * some + ["memory: fastcl", "plain"]
    lines = []
    for key, variants in cases.items():
        ours = variants["fastcl"]
        cells = [title(key, dtypes), milliseconds(ours)]
        if foretold:
            guess = foretold.get(key[0])
            cells.append("-" if guess is None else milliseconds({"median_ms": str(guess)}))
        cells += [rate(ours), f"{float(ours['fraction']):.0%}"]
        cells += [times(variants.get(v), ours) for v in shown]
        cells += [fastest(variants, ours)] * some
        lines.append([*cells, megabytes(ours), megabytes(variants.get("plain"))])
    parts = [grid(heads, lines), "", _where(rows), *_bfloat16(cases, rows[0]), *_graphs(cases)]
    parts += _remarks(rows, wanted=False) + _left_out(rows, wanted=False)
    return "\n".join(parts) + "\n"


def _where(rows: list[Row]) -> str:
    """The circumstances, once: those of the first row, and when cases were measured apart."""
    first = rows[0]
    cores, load = float(first.get("cores") or 0), float(first.get("load") or 0)
    busy = f" The machine was busy: load {load:.1f} on {cores:.0f} cores."
    when: dict[tuple, dict[str, None]] = {}
    for row in rows:
        when.setdefault((row["commit"], row["date"]), {})[row["case"]] = None
    (commit, date), *later = when
    apart = "".join(f"; {', '.join(when[key])}: commit {key[0]}, {key[1]}" for key in later)
    return (
        f"{first['machine']}, {first['threads']} threads, torch {first['torch']}, "
        f"commit {commit}, {date}{apart}. Forward and backward, medians of interleaved "
        "rounds; the others as multiples of fastcl's time; memory above inputs and gradients; the "
        "ceiling is a large product (for bytes, a copy) among the same rounds."
        + (busy if load > cores / 4 else "")
    )


def _bfloat16(cases: dict, first: Row) -> list[str]:
    """fastcl on bfloat16 rows against fastcl on float32 rows, where a case has both."""
    has = "has" if first.get("bf16") == "yes" else "has no"
    return [
        f"On bfloat16 rows {name} takes {milliseconds(v['fastcl bf16'])}, "
        f"{float(v['fastcl']['median_ms']) / float(v['fastcl bf16']['median_ms']):.1f}x as fast "
        f"as on float32 rows; this processor {has} bfloat16 products."
        for (name, _), v in cases.items()
        if v.get("fastcl bf16", {}).get("median_ms")
    ]


def _graphs(cases: dict) -> list[str]:
    return [
        f"{name} in a CUDA graph: {milliseconds(v['fastcl, CUDA graph'])}."
        for (name, _), v in cases.items()
        if v.get("fastcl, CUDA graph", {}).get("median_ms")
    ]


def _remarks(rows: list[Row], wanted: bool) -> list[str]:
    """How variants were called, where that is not plain: of the libraries, or of the others."""
    timed = [r for r in rows if r["median_ms"] and is_library(r["variant"]) == wanted]
    found = dict.fromkeys((r["variant"], r.get("remark")) for r in timed)
    return [f"{name}: {remark}." for name, remark in found if remark]


def _left_out(rows: list[Row], wanted: bool) -> list[str]:
    """Who could not run or was wrong, and why: of the libraries, or of the others."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["note"] and is_library(row["variant"]) == wanted and "one chunk" not in row["note"]:
            reasons.setdefault((row["variant"], row["note"]), []).append(row["case"])
    return [f"Not timed: {v} on {', '.join(c)}: {note}." for (v, note), c in reasons.items()]


def libraries(rows: list[Row]) -> str:
    """Every other library, case by case: its time, memory and error beside fastcl's."""
    cases = by_case(rows)
    dtypes = {dtype for _, dtype in cases}
    lines = []
    for key, variants in cases.items():
        ours = variants["fastcl"]
        for row in (r for r in variants.values() if is_library(r["variant"])):
            name = f"{row['variant']} {row['version']}"
            if not row["median_ms"]:
                lines.append([name, title(key, dtypes), "-", "-", "-", row["note"]])
                continue
            error = f"{float(row['error']):.0e} ({float(ours['error']):.0e})"
            memory = f"{megabytes(row)} ({megabytes(ours)})"
            lines.append([name, title(key, dtypes), times(row, ours), memory, error, ""])
    if not lines:
        return ""
    heads = ["library", "case", "time", "memory (fastcl)", "error (fastcl)", "not timed"]
    lines.sort(key=lambda cells: cells[0].lower())
    text = (
        "Time as a multiple of fastcl's; memory above inputs and gradients; largest relative error "
        "of loss and gradients against float64."
    )
    return "\n".join([grid(heads, lines), "", text, *_remarks(rows, wanted=True)]) + "\n"


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of log y against log x by least squares over the larger half of the points."""
    half = sorted(points)[len(points) // 2 :]
    xs, ys = ([math.log(p[i]) for p in half] for i in (0, 1))
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - x0) ** 2 for x in xs
    )


def curves(rows: list[Row], key: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Points (n, value) by loss and variant, for values that are there and above zero."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row[key] and float(row[key]) > 0:
            of_loss = found.setdefault(row["loss"], {})
            of_loss.setdefault(row["variant"], []).append((float(row["n"]), float(row[key])))
    return found


def scaling(rows: list[Row]) -> str:
    """Time and memory per size, and the powers they grow with."""
    cases = by_case(rows)
    others = [v for v in ("plain", "compiled") if any(v in c for c in cases.values())]
    heads = ["case", "fastcl", "of the ceiling", *others, "memory: fastcl", *others]
    lines = []
    for (name, _), variants in cases.items():
        ours = variants["fastcl"]
        cells = [name, milliseconds(ours), f"{float(ours['fraction']):.0%}"]
        cells += [times(variants.get(v), ours) for v in others]
        cells += [megabytes(ours), *(megabytes(variants.get(v)) for v in others)]
        lines.append(cells)
    labels = {row["loss"]: row["case"].split()[0] for row in rows}
    powers = []
    for key, what in (("median_ms", "Time"), ("extra_mb", "Memory")):
        for loss, variants in curves(rows, key).items():
            fits = [f"{v} n^{exponent(p):.2f}" for v, p in variants.items() if len(p) > 3]
            if fits:
                powers.append(f"{what} of {labels[loss]} over its larger sizes: {', '.join(fits)}.")
    left = _left_out(rows, wanted=False)
    return "\n".join([grid(heads, lines), "", _where(rows), *powers, *left]) + "\n"
