"""Rows of results as pictures, where matplotlib is installed."""

import importlib.util
from pathlib import Path

from . import tables

COLOURS = {"fastcl": "#c1121f", "plain": "#6c757d", "compiled": "#003566", "chunked": "#2a9d8f"}
OTHERS = ("#e09f3e", "#7b2cbf", "#588157", "#bc6c25", "#3a86ff", "#8d99ae")


def figure(rows: int, columns: int, height: float):
    """A figure of panels, and their axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(9, height), constrained_layout=True, squeeze=False
    )
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def save(figure, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=120)
    plt.close(figure)


def scaling(rows: list[tables.Row], path: Path) -> None:
    """Time and memory against rows, one line of panels per loss, all axes logarithmic."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from matplotlib.ticker import LogLocator

    times, memory = (tables.curves(rows, key) for key in ("median_ms", "extra_mb"))
    picture, axes = figure(len(times), 2, 3.4 * len(times))
    for line, loss in zip(axes, times, strict=True):
        mine = [r for r in rows if r["loss"] == loss]
        name = f"{mine[0]['case'].split()[0]}, width {mine[0]['d']}"
        for axis, values in zip(line, (times, memory), strict=True):
            for variant, points in values.get(loss, {}).items():
                style = {"marker": "o", "markersize": 3.5, "linewidth": 1.4}
                axis.loglog(
                    *zip(*sorted(points), strict=True), color=COLOURS.get(variant),
                    label=variant, **style,
                )  # fmt: skip
        ours = [r for r in mine if r["variant"] == "fastcl" and r["median_ms"]]
        limit = [(float(r["n"]), 1e3 * float(r["work"]) / float(r["ceiling"])) for r in ours]
        line[0].loglog(
            *zip(*sorted(limit), strict=True), "k--", linewidth=1,
            label="products alone, at the measured rate",
        )  # fmt: skip
        for axis, label in zip(line, ("ms", "MB"), strict=True):
            axis.set(xlabel="rows", ylabel=label)
            axis.xaxis.set_major_locator(LogLocator(base=4, numticks=9))
            axis.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
            axis.minorticks_off()
        line[0].set_title(f"{name}: forward and backward", fontsize=10)
        line[1].set_title(f"{name}: extra memory", fontsize=10)
        line[0].legend(frameon=False, fontsize=8)
    save(picture, path)


def distances(rows: list[tables.Row], path: Path) -> None:
    """Every variant's distance from the time of the work that cannot be avoided, case by case."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    cases = tables.by_case(rows)
    dtypes = {dtype for _, dtype in cases}
    names = [n for n in dict.fromkeys(r["variant"] for r in rows if r["median_ms"])]
    spare = iter(OTHERS * len(names))
    colours = {n: COLOURS[n] if n in COLOURS else next(spare) for n in names}
    picture, ((axis,),) = figure(1, 1, 1.2 + 0.42 * len(cases))
    labelled = set()
    for place, variants in enumerate(cases.values()):
        timed = [r for r in variants.values() if r["median_ms"] and r["fraction"]]
        axis.plot(
            [1, max(1 / float(r["fraction"]) for r in timed)], [place] * 2, color="#dddddd",
            linewidth=1, zorder=1,
        )  # fmt: skip
        for row in timed:
            name = row["variant"]
            ours = name == "fastcl"
            axis.scatter(
                1 / float(row["fraction"]), place, s=46 if ours else 24, color=colours[name],
                marker="D" if ours else "o", label=None if name in labelled else name, zorder=2,
            )  # fmt: skip
            labelled.add(name)
    axis.axvline(1, color="black", linestyle="--", linewidth=1)
    axis.set_xscale("log")
    axis.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axis.set_yticks(range(len(cases)), [tables.title(key, dtypes) for key in cases])
    axis.invert_yaxis()
    axis.minorticks_off()
    axis.set_xlabel("time, in multiples of the products alone (dashed) at the measured rate")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(picture, path)
