"""The table of results/views.csv, for results/views.md and docs/results.md; a short one for the
README."""

from . import report, tables

SUITE, SHORT = "views", "views_short"
OURS = "fastcl"
LARGE, SMALL = "JPEG to two views of 224", "32 x 32 to two views"
TORCHVISION, KORNIA = "torchvision v1 on Pillow", "kornia, batches of 512"
ALBUMENTATIONS = "AlbumentationsX, linear"


def table(rows: list[dict[str, str]]) -> str:
    """Time per image and how many times fastcl's, below each other for every machine."""
    return "\n".join(map(_of_machine, report.by_machine(rows)))


def _of_machine(rows: list[dict[str, str]]) -> str:
    timed = [row for row in rows if row["us"]]
    ours = {row["case"]: float(row["us"]) for row in timed if row["variant"] == OURS}
    lines = []
    for row in timed:
        us = float(row["us"])
        times = _short(us / ours[row["case"]]) + "x" if row["case"] in ours else ""
        share = f"{float(row['of_decoding']):.2f}" if row["of_decoding"] else ""
        lines.append([row["case"], row["variant"], f"{_short(us)} us", times, share])
    names = ["case", "by", "per image", "of fastcl's", "of decoding alone"]
    first = rows[0]
    extra = [f"{x['variant']}: {float(x['extra_mb']):.1f} MB" for x in rows if x["extra_mb"]]
    notes = [
        f"{first['machine']}, torch {first['torch']}, commit {first['commit']}, {first['date']}. "
        "Processor time of one thread (wall time where the threads are named), medians of "
        f"interleaved rounds; load {float(first['load']):.1f} on {first['cores']} cores. "
        f"Photographs of 500 x 375, {next(x['note'] for x in rows if x['note'])}; fastcl by "
        f"`load`, which decodes {_decoded(timed)} and makes its views before the next.",
        f"Memory above the output, one call: {', '.join(extra)}.",
    ]
    return f"{tables.grid(names, lines)}\n\n" + "\n".join(notes) + "\n"


def _decoded(rows: list[dict[str, str]]) -> str:
    by = next(row["version"] for row in rows if row["variant"] == OURS)
    return f"what the views of an image show, by {by}," if by else "an image, by simplejpeg,"


def _short(x: float) -> str:
    """Two digits at least, and no more behind the point than that takes."""
    return f"{x:,.{0 if x >= 10 else 1 if x >= 1 else 2}f}"


def short(rows: list[dict[str, str]]) -> str:
    """A line for every machine; a dash for a library that it had not installed."""
    names = [
        "SimCLR's two views", "of a JPEG", "decoding alone", "AlbumentationsX", "torchvision",
        "of 32 x 32", "kornia at 32", "torchvision at 32",
    ]  # fmt: skip
    others = {LARGE: ("simplejpeg, decoding alone", ALBUMENTATIONS, TORCHVISION),
              SMALL: (KORNIA, TORCHVISION)}  # fmt: skip
    lines = []
    for some in report.by_machine(rows):
        us = {(row["case"], row["variant"]): float(row["us"]) for row in some if row["us"]}
        cells = [f"{some[0]['machine']}, commit {some[0]['commit']}"]
        for case, variants in others.items():
            ours = us[case, OURS]
            there = (us.get((case, x)) for x in variants)
            cells += [f"{_short(ours)} us", *(f"{_short(x / ours)}x" if x else "-" for x in there)]
        lines.append(cells)
    return (
        f"{tables.grid(names, lines)}\n\nProcessor time of one thread per image, "
        "500 x 375 pixels with decoding, and how many times that the others take.\n"
    )


def show() -> None:
    rows = report.read(report.RESULTS / f"{SUITE}.csv")
    text = table(rows)
    (report.RESULTS / f"{SUITE}.md").write_text(text)
    report.write_pages(SUITE, text)
    report.write_pages(SHORT, short(rows))
    print(text)


if __name__ == "__main__":
    show()
