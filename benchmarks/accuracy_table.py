"""The table of `benchmarks.accuracy` in docs/methods.md."""

from .report import RESULTS, ROOT, insert, read

ROWS, STEPS = RESULTS / "accuracy.csv", RESULTS / "accuracy_steps.csv"
PAGE = ROOT / "docs" / "methods.md"
NAMES = {"simclr": "SimCLR", "moco": "MoCo v2", "byol": "BYOL", "swav": "SwAV", "dino": "DINO"}
WHO = "untrained", "fastcl", "lightly"


def percent(row: dict[str, str], figure: str) -> str:
    cells = (f"{100 * float(row[f'{who}_{figure}']):.1f}" for who in WHO)
    return " | ".join(cells)


def table(rows: list[dict[str, str]], steps: list[dict[str, str]]) -> str:
    """A line per row of accuracies, with the time ratio of the same method and network."""
    ratios = {(r["method"], r["backbone"]): r for r in steps}
    lines = [
        "| method | images, epochs | 20-NN: untrained | fastcl | lightly | linear: untrained | "
        "fastcl | lightly | time of a step, lightly's over fastcl's |",
        "|" + " --- |" * 9,
    ]
    for row in sorted(rows, key=lambda r: list(NAMES).index(r["method"])):
        found = ratios.get((row["method"], row["backbone"]))
        ratio = f"{float(found['ratio']):.2f}" if found else "-"
        lines.append(
            f"| {NAMES[row['method']]} | {int(row['images']):,}, {row['epochs']} | "
            f"{percent(row, 'knn')} | {percent(row, 'probe')} | {ratio} |"
        )
    one = rows[0]
    lines += [
        "",
        f"Per cent of {int(one['tested']):,} test images; seed {one['seed']}, batches of "
        f"{one['batch']}, AdamW at {one['rate']}. {one['machine']}, {one['threads']} thread, torch "
        f"{one['torch']}, commit {one['commit']}, {one['date']}.",
    ]
    return "\n".join(lines) + "\n"


def write() -> None:
    rows, steps = (read(path) if path.exists() else [] for path in (ROWS, STEPS))
    if rows:
        PAGE.write_text(insert(PAGE.read_text(), "accuracy", table(rows, steps)))
