"""Tables and curves of `benchmarks.finetuning_sentences`, from its rows."""

import importlib.util
from pathlib import Path

from . import migration, plots, report, tables

RUNS_CSV, STEPS_CSV = "finetuning_sentences.csv", "finetuning_steps.csv"
Rows = list[dict[str, str]]


def _source(rows: Rows) -> str:
    """Where they were measured; of rows of several commits all of them."""
    found = dict.fromkeys(
        f"{row['machine']}, torch {row['torch']}, commit {row['commit']}, {row['date']}"
        for row in rows
    )
    return "; ".join(found)


def runs(rows: Rows) -> str:
    """What the encoder is worth after each loss, and how far a curve is from the library's."""
    lines = []
    for row in rows:
        first, *_, last = row["curve"].split() or ["-", "-"]
        apart = f"{float(row['apart']):.0e} from that of `{row['twin']}`" if row["apart"] else ""
        figures = [f"{float(row[k]):.4f}" for k in ("spearman", "spearman_narrow", "recall_10")]
        ends = "" if first == "-" else f"{float(first):.3f} to {float(last):.3f}"
        lines.append([row["run"], *figures, ends, apart])
    heads = ["loss", "Spearman", "of the first 48 features", "recall@10", "first and last step",
             "largest difference of the curve"]  # fmt: skip
    trained = rows[-1]
    seconds = [float(row["seconds"]) for row in rows[1:]]
    loads = [float(row["load"]) for row in rows]
    return "\n".join([
        tables.grid(heads, lines), "",
        f"{trained['pairs']} pairs of STS-B's training part, batches of {trained['batch']}, "
        f"{trained['epochs']} epoch; figures on its test part. {_source(rows)}. One thread a "
        f"training, {trained['workers']} at a time, {min(seconds):.0f} to {max(seconds):.0f} s "
        f"each, under a load of {min(loads):.0f} to {max(loads):.0f}: `python -m "
        f"benchmarks.finetuning_sentences --pairs {trained['pairs']}`, "
        f"[rows](../benchmarks/results/{RUNS_CSV}).",
    ]) + "\n"  # fmt: skip


def steps(rows: Rows) -> str:
    """Time and memory of the step from embeddings to gradients."""
    lines = []
    for theirs, ours in zip(rows[::2], rows[1::2], strict=True):
        ratio = float(theirs["median_ms"]) / float(ours["median_ms"])
        lines.append([
            f"`{theirs['name']}`", theirs["size"], tables.milliseconds(theirs),
            tables.milliseconds(ours), f"{ratio:.1f}x", tables.megabytes(theirs),
            tables.megabytes(ours),
        ])  # fmt: skip
    heads = ["loss", "pairs", "library", "fastcl", "ratio", "memory: library", "fastcl"]
    threads = " or ".join(sorted({row["threads"] for row in rows}))
    loads = [float(row["load"]) for row in rows]
    return "\n".join([
        tables.grid(heads, lines), "",
        f"{_source(rows)}, threads: {threads}, load {min(loads):.0f} to {max(loads):.0f}: "
        "float32, forward and backward, medians of interleaved rounds; memory above the "
        "embeddings, gradients included. The two agree within "
        f"{migration.LIMIT:g}: [rows](../benchmarks/results/{STEPS_CSV}).",
    ]) + "\n"  # fmt: skip


def curves(rows: Rows, path: Path) -> None:
    """The losses of a run and of the one that must equal it, a panel each."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    by_name = {row["run"]: [float(x) for x in row["curve"].split()] for row in rows}
    pairs = [(row["twin"], row["run"]) for row in rows if row["twin"]]
    figure, (axes,) = plots.figure(1, len(pairs), 2.8)
    for axis, (theirs, ours) in zip(axes, pairs, strict=True):
        axis.plot(by_name[theirs], color=plots.COLOURS["plain"], linewidth=4, alpha=0.5,
                  label="sentence-transformers")  # fmt: skip
        axis.plot(by_name[ours], color=plots.COLOURS["fastcl"], linewidth=1.2, label="fastcl")
        axis.set(title=theirs, xlabel="step", ylabel="loss")
        axis.title.set_fontsize(9)
    axes[0].legend(frameon=False, fontsize=8)
    plots.save(figure, path)


def show(folder: Path) -> None:
    """Print what there is; the committed rows go into the page too."""
    made = {"finetuning": (RUNS_CSV, runs), "finetuning_steps": (STEPS_CSV, steps)}
    for name, (file, table) in made.items():
        if not (folder / file).exists():
            continue
        rows = report.read(folder / file)
        text = table(rows)
        print(f"\n{text}")
        if folder == report.RESULTS:
            report.write_pages(name, text)
        if name == "finetuning":
            curves(rows, (folder / file).with_suffix(".png"))
