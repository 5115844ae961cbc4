"""The table of results/throughput.csv in docs/data.md."""

from . import report, tables

SUITE = "throughput"


def table(rows: list[dict[str, str]]) -> str:
    """One figure a line, and below where all are from."""
    lines = [[row["case"], row["figure"], _value(row)] for row in rows]
    sources = dict.fromkeys(
        f"{row['machine']}, {row['cores']} cores, torch {row['torch']}, commit {row['commit']}, "
        f"{row['date']}"
        for row in rows
    )
    loads = [float(row["load"]) for row in rows]
    notes = [*sources, f"Load {min(loads):.1f} to {max(loads):.1f} while it was measured."]
    return tables.grid(["case", "figure", "value"], lines) + "\n\n" + "  \n".join(notes) + "\n"


def _value(row: dict[str, str]) -> str:
    value = float(row["value"])
    if row["unit"] == "share":
        return f"{value:.1%}"
    short = f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
    return f"{short} {row['unit']}".rstrip()


def show() -> None:
    text = table(report.read(report.RESULTS / f"{SUITE}.csv"))
    report.write_pages(SUITE, text)
    print(text)


if __name__ == "__main__":
    show()
