"""The table of `benchmarks.accuracy` in docs/methods.md."""

from .report import RESULTS, ROOT, insert, read

ROWS, STEPS = RESULTS / "accuracy.csv", RESULTS / "accuracy_steps.csv"
PAGE = ROOT / "docs" / "methods.md"
NAMES = {
    "simclr": "SimCLR", "moco": "MoCo v2", "byol": "BYOL", "swav": "SwAV", "dino": "DINO",
    "dino-exchanged": "DINO, crops as the other passes them",
}  # fmt: skip
WHO = "untrained", "fastcl", "lightly"
WHOLE, HOUR = 50_000, 3_600_000  # images of the training split; milliseconds


def percent(row: dict[str, str], figure: str) -> str:
    cells = (f"{100 * float(row[f'{who}_{figure}']):.1f}" for who in WHO)
    return " | ".join(cells)


def ratio(steps: dict[str, str] | None) -> str:
    if steps is None:
        return "-"
    return "{:.2f} ({:.2f} to {:.2f})".format(*(float(steps[k]) for k in ("ratio", "q20", "q80")))


def listed(rows: list[dict[str, str]], column: str) -> str:
    return ", ".join(dict.fromkeys(row[column] for row in rows))


def made(rows: list[dict[str, str]]) -> str:
    threads = listed(rows, "threads")
    return (
        f"{listed(rows, 'machine')}, {threads} thread{'s' * (threads != '1')}, torch "
        f"{listed(rows, 'torch')}, commit {listed(rows, 'commit')}, {listed(rows, 'date')}"
    )


def passes(steps: dict[str, str], who: str) -> float:
    """Over the whole training split in an hour."""
    return HOUR / float(steps[f"{who}_ms"]) * int(steps["batch"]) / WHOLE


def hour(steps: list[dict[str, str]]) -> str:
    """What an hour is enough for, of every method."""
    found = ", ".join(
        f"{NAMES[row['method']]} {passes(row, 'fastcl'):.0f} ({passes(row, 'lightly'):.0f})"
        for row in steps
    )
    return (
        f"At these times an hour is enough for so many passes over all {WHOLE:,} training images "
        f"with fastcl (with lightly): {found}."
    )


def table(rows: list[dict[str, str]], steps: list[dict[str, str]]) -> str:
    """A line per row of accuracies, with the time ratio of the same method and network."""
    ratios = {(r["method"], r["backbone"]): r for r in steps}
    lines = [
        "| method | images, epochs | 20-NN: untrained | fastcl | lightly | linear: untrained | "
        "fastcl | lightly | time of a step, lightly's over fastcl's |",
        "|" + " --- |" * 9,
    ]
    for row in sorted(rows, key=lambda r: list(NAMES).index(r["method"])):
        lines.append(
            f"| {NAMES[row['method']]} | {int(row['images']):,}, {row['epochs']} | "
            f"{percent(row, 'knn')} | {percent(row, 'probe')} | "
            f"{ratio(ratios.get((row['method'], row['backbone'])))} |"
        )
    trained = {row["method"] for row in rows}
    lines += [
        f"| {NAMES[row['method']]} |" + " - |" * 7 + f" {ratio(row)} |"
        for row in steps
        if row["method"] not in trained
    ]
    one = rows[0]
    lines += [
        "",
        f"Per cent of {int(one['tested']):,} test images; batches of {one['batch']}, AdamW at "
        f"{one['rate']}, seed {listed(rows, 'seed')}. {made(rows)}.",
    ]
    if steps:
        quantiles = "Steps, with the quantiles of 20 and 80 % of the turns"
        lines += [f"{quantiles}: {made(steps)}.", "", hour(steps)]
    return "\n".join(lines) + "\n"


def kept() -> tuple[list[dict[str, str]], ...]:
    """The rows of accuracies and of steps."""
    return tuple(read(path) if path.exists() else [] for path in (ROWS, STEPS))


def write() -> None:
    rows, steps = kept()
    if rows:
        PAGE.write_text(insert(PAGE.read_text(), "accuracy", table(rows, steps)))
