"""Ctrl-C and the scheduler's SIGTERM, heard between two steps."""

import signal
import threading


class Stopped(Exception):
    """A run that was asked to stop, has saved and can go on.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number  # what a shell says of a process that the signal ended


class StopRequest:
    """Keeps the first signal until somebody asks; the second Ctrl-C interrupts at once.

    Attributes:
        number: Of the signal, None before one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _frame) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None
