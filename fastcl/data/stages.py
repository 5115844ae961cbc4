"""What each stage of a loader costs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Failed:
    """An error on its way to the thread that asks for the batches."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


@dataclass(frozen=True)
class StageReport:
    """What a stage has done.

    Args:
        seconds: Of all its threads together.
        calls: Of its function: chunks of images, or batches.
        busy: Share of the elapsed time that its threads worked, at most 1.
    """

    seconds: float
    calls: int
    busy: float


class Stage:
    """A function of a pipeline with its time. What fails is handed on, and everything that has
    failed before passes by.

    Args:
        name: In reports.
        work: Called in any thread.
        threads: How many at once.
        within: A stage whose work is a part of this one's, and not counted here.
    """

    def __init__(
        self, name: str, work: Callable, threads: int, within: "Stage | None" = None
    ) -> None:
        self.name, self.work, self.threads, self.within = name, work, threads, within
        self.seconds, self.calls = 0.0, 0
        self._lock = threading.Lock()

    def __call__(self, item):
        if isinstance(item, Failed):
            return item
        try:
            with self.timed():
                return self.work(item)
        except BaseException as error:  # an engine would log it and go on without the item
            return Failed(error)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What is done here is this stage's work."""
        started = time.perf_counter()
        yield
        with self._lock:
            self.seconds += time.perf_counter() - started
            self.calls += 1

    def report(self, elapsed: float) -> StageReport:
        seconds = self.seconds - (0.0 if self.within is None else self.within.seconds)
        busy = seconds / (elapsed * self.threads) if elapsed > 0 else 0.0
        return StageReport(seconds, self.calls, min(max(busy, 0.0), 1.0))
