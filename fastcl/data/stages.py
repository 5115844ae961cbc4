"""What each stage of a loader costs."""

import threading
import time
from collections.abc import Callable
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
    """

    def __init__(self, name: str, work: Callable, threads: int) -> None:
        self.name, self.work, self.threads = name, work, threads
        self.seconds, self.calls = 0.0, 0
        self._lock = threading.Lock()

    def __call__(self, item):
        if isinstance(item, Failed):
            return item
        started = time.perf_counter()
        try:
            found = self.work(item)
        except BaseException as error:  # an engine would log it and go on without the item
            return Failed(error)
        with self._lock:
            self.seconds += time.perf_counter() - started
            self.calls += 1
        return found

    def report(self, elapsed: float) -> StageReport:
        busy = self.seconds / (elapsed * self.threads) if elapsed > 0 else 0.0
        return StageReport(self.seconds, self.calls, min(busy, 1.0))
