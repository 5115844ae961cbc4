"""How much of a training step goes into loss, queue and momentum, by the profiler."""

import os
import time

import torch
from torch.profiler import ProfilerActivity, profile

LABELS = ("fastcl::loss", "fastcl::queue", "fastcl::momentum")
BACKWARD = "autograd::engine::evaluate_function: "


class StepShares:
    """Profiles a few steps of a run.

    A share is the time under the method's `record_function` label, and in the backward of what
    ran there, over the duration of the step: kernel time on a GPU, elapsed time on a CPU.

    Args:
        device: Where the steps run.
        skip: Steps that pass first, while caches and allocators fill.
        steps: Steps measured.
    """

    def __init__(self, device: torch.device, skip: int = 3, steps: int = 5) -> None:
        self._cuda = device.type == "cuda"
        self._skip, self._steps, self._step = skip, steps, 0
        self._profile = None
        self._elapsed: float | None = None  # seconds of the steps, once they have passed
        self._result: dict[str, float] | None = None

    def begin_step(self) -> None:
        """Before every step."""
        if self._step == self._skip:
            activities = [ProfilerActivity.CPU]
            if self._cuda:
                activities.append(ProfilerActivity.CUDA)
            # At its default level the profiler of torch 2.13 writes lines into the progress bar.
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")
            self._profile = profile(activities=activities)
            self._profile.start()
            self._synchronize()
            self._started = time.perf_counter()
        self._step += 1

    def end_step(self) -> None:
        """After every step."""
        if self._step == self._skip + self._steps:
            self.stop()

    def stop(self) -> None:
        """Measure no further step; what has been measured counts."""
        if self._profile is None or self._elapsed is not None:
            return
        self._synchronize()
        self._elapsed = time.perf_counter() - self._started
        self._profile.stop()

    @property
    def result(self) -> dict[str, float] | None:
        """Label to share, or None until they are measured. The first reading takes seconds."""
        if self._elapsed is not None:
            self._result = self._measure(self._profile.events(), self._elapsed)
            self._profile = self._elapsed = None
        return self._result

    @result.setter
    def result(self, shares: dict[str, float] | None) -> None:
        self._result = shares

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def _measure(self, events, elapsed: float) -> dict[str, float]:
        # The GPU's copies of the labels would count twice.
        events = [e for e in events if e.device_type == torch.autograd.DeviceType.CPU]
        backward: dict[int, float] = {}
        for event in events:
            if event.name.startswith(BACKWARD):
                number = event.sequence_nr
                backward[number] = backward.get(number, 0.0) + self._microseconds(event)
        shares = {}
        for label in LABELS:
            total, numbers = 0.0, set()
            for event in events:
                if event.name == label:
                    total += self._microseconds(event)
                    numbers |= _sequence_numbers(event)
            total += sum(backward.get(number, 0.0) for number in numbers)
            shares[label.removeprefix("fastcl::")] = total * 1e-6 / elapsed
        return shares

    def _microseconds(self, event) -> float:
        return event.device_time_total if self._cuda else event.cpu_time_total


def _sequence_numbers(event) -> set[int]:
    """Of the autograd nodes made under an event; their backward carries the same numbers."""
    numbers = {event.sequence_nr} if event.sequence_nr >= 0 else set()
    return numbers.union(*(_sequence_numbers(child) for child in event.cpu_children))
