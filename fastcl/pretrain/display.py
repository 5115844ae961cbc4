"""What a run shows while it works and at its end."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..evaluate.measure import Metric
from ..evaluate.report import Report

# Reading the loss waits for the device; five times a second costs nothing and looks live.
REFRESH_SECONDS = 0.2
# Where no terminal shows the bar, about this many lines tell of the run.
LINES = 10


def _top1(value: float | None) -> str:
    """Empty for methods that rank nothing."""
    return "" if value is None or value != value else f"  top-1 {value:.1%}"


def _waited(share: float | None, slowest: str | None = None) -> str:
    """Empty where nothing is read while it trains."""
    if share is None:
        return ""
    return f"  waiting {share:.0%}" + (f" for {slowest}" if slowest and share >= 0.05 else "")


class Display:
    """A live bar on a terminal, a line now and then elsewhere.

    Args:
        console: Where it appears.
        epochs: Of the run.
        steps: Of one epoch.
        done: Epochs behind a resumed run.
        step: Steps of the next one behind it.
    """

    def __init__(self, console: Console, epochs: int, steps: int, done: int, step: int = 0) -> None:
        self._console, self._epochs, self._steps = console, epochs, steps
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "", total=epochs * steps, completed=done * steps + step, epoch=done, epochs=epochs,
            figures="",
        )  # fmt: skip
        self._next = 0.0

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._progress.stop()

    def due(self) -> bool:
        """Whether the next step is to be shown."""
        return self._console.is_terminal and time.monotonic() >= self._next

    def show_step(
        self, epoch: int, step: int, loss: float, top1: float | None, speed: float,
        waited: float | None,
    ) -> None:  # fmt: skip
        self._next = time.monotonic() + REFRESH_SECONDS
        self._progress.update(
            self._task, completed=epoch * self._steps + step, epoch=epoch + 1,
            figures=f"loss {loss:.3f}{_top1(top1)}  {speed:,.0f} images/s{_waited(waited)}",
        )  # fmt: skip

    def warn(self, text: str) -> None:
        self._console.print(f"[bold yellow]warning:[/] {escape(text)}", highlight=False)

    def show_epoch(self, row: dict, speed: float) -> None:
        epoch = row["epoch"]
        if self._console.is_terminal:
            self.show_step(
                epoch - 1, self._steps, row["loss"], row["top1"], speed, row["waited"]
            )  # fmt: skip
        elif epoch == self._epochs or epoch % max(1, self._epochs // LINES) == 0:
            self._console.print(
                f"epoch {epoch}/{self._epochs}  loss {row['loss']:.3f}"
                f"{_top1(row['top1'])}  {speed:,.0f} images/s"
                f"{_waited(row['waited'], row['slowest'])}"
            )


class Steps:
    """What is being done: one live line on a terminal, a line for each step elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console, self._status = console, console.status("")

    def __enter__(self) -> "Steps":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._status.stop()

    def tell(self, text: str) -> None:
        if self._console.is_terminal:
            self._status.update(escape(text))
        else:
            self._console.print(text, markup=False, highlight=False)


def print_report(console: Console, report: Report) -> None:
    """The table of accuracies and the shares of the step time."""
    if report.scores:
        table = Table(title="accuracy on the test images")
        table.add_column("features")
        table.add_column("20-NN", justify="right")
        table.add_column("5 labels per class", justify="right")
        for score in report.scores:
            table.add_row(score.features, f"{score.knn:.1%}", f"{score.probe:.1%}")
        console.print(table)
    else:
        console.print(
            "There is no accuracy to report: it takes labels of two classes in both splits."
        )
    if report.seconds is not None:
        console.print(f"trained in {report.seconds:,.0f} s")
    if report.shares:
        parts = ", ".join(f"{name} {share:.1%}" for name, share in report.shares.items())
        console.print(f"share of the step time: {parts}")
    else:
        console.print("share of the step time: not measured, the run was too short")


def print_metrics(console: Console, metrics: list[Metric]) -> None:
    """Every figure of an evaluation; what each was taken by is in its report."""
    columns = list(dict.fromkeys(name for metric in metrics for name in metric.values))
    table = Table(title="figures of the test images")
    table.add_column("figure")
    for name in columns:
        table.add_column(name, justify="right")
    for metric in metrics:
        cells = (
            f"[bold]{metric.text(name)}[/]" if name == metric.best else metric.text(name)
            for name in columns
        )
        table.add_row(metric.name, *cells)
    console.print(table)
