"""How many devices a run takes, and what they multiply with."""

import torch


def device_count(devices: str) -> int:
    """How many processes "auto" or a number stands for: every GPU, or one process.

    Raises:
        ValueError: Neither "auto" nor a number above zero.
    """
    if devices == "auto":
        return max(1, torch.cuda.device_count())
    if not devices.isdigit() or int(devices) < 1:
        raise ValueError(f"devices must be auto or a number from 1, got {devices!r}")
    return int(devices)


def automatic_precision() -> str:
    """bf16 on a GPU that multiplies it; 32 elsewhere, where most CPUs only emulate it."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(False) else "32"
