"""Pictures and figures of docs/pretraining.md: `python -m docs.pretraining.make [RUN]`.

RUN is a folder that the page's two commands have made; without it they run here, which takes some
minutes. Rows go to benchmarks/results/walkthrough.csv.
"""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from benchmarks import report, tables

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "pretraining.md"
ROWS = report.RESULTS / "walkthrough.csv"
PICTURES = {
    "curves": "curves.png", "embedding": "evaluation/embedding.png",
    "neighbours": "evaluation/retrieval.png",
}  # fmt: skip
WIDTH, COLOURS, LARGER = 800, 64, 5
FEATURES = "raw pixels", "untrained backbone", "trained backbone"


def fastcl(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "fastcl.cli", *map(str, words)], check=True)


def pictures(run: Path) -> None:
    """Those of the run, smaller, and the views of some digits, larger."""
    for name, path in PICTURES.items():
        image = Image.open(run / path).convert("RGB")
        image = image.resize((WIDTH, image.height * WIDTH // image.width), Image.Resampling.LANCZOS)
        image.quantize(COLOURS).save(FOLDER / f"{name}.png", optimize=True)
    views = FOLDER / "views.png"
    fastcl("views", "digits", "--preset", "digits", "--size", 8, "--count", 10, "--out", views)
    image = Image.open(views).convert("L")
    size = image.width * LARGER, image.height * LARGER
    image.resize(size, Image.Resampling.NEAREST).save(views, optimize=True)


def rows(run: Path) -> list[dict]:
    """One per figure of `fastcl evaluate`."""
    seconds = json.loads((run / "results.json").read_text())["seconds"]
    metrics = json.loads((run / "evaluation.json").read_text())["metrics"]
    where = report.circumstances("cpu") | {"train_seconds": round(seconds)}
    return [
        where
        | {"figure": metric["name"], "percent": "yes" if metric["percent"] else "no"}
        | {name: metric["values"].get(name, "") for name in FEATURES}
        for metric in metrics
    ]


def table(found: list[dict[str, str]]) -> str:
    def shown(value: str, percent: bool) -> str:
        return "-" if value == "" else f"{float(value):.1%}" if percent else f"{float(value):.3g}"

    lines = [
        [row["figure"], *(shown(row[name], row["percent"] == "yes") for name in FEATURES)]
        for row in found
    ]
    one = found[0]
    load = f"{float(one['load']):.1f}"
    return (
        f"{tables.grid(['figure', *FEATURES], lines)}\n\nOne seed, {one['train_seconds']} s of "
        f"training: {one['machine']}, {one['threads']} threads, load {load}, torch "
        f"{one['torch']}, commit {one['commit']}, {one['date']}.\n"
    )


def main() -> None:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
    if len(sys.argv) == 1:
        fastcl("pretrain", "--method", "simclr", "--out", run)
        fastcl("evaluate", run)
    report.save(rows(run), ROWS, ())  # before a picture is another one than that of the commit
    pictures(run)
    PAGE.write_text(report.insert(PAGE.read_text(), "walkthrough", table(report.read(ROWS))))


if __name__ == "__main__":
    main()
