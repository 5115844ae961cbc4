"""The Triton kernels on the CPU: tests/interpreted in a process under Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def run_interpreted(marker):
    folder = Path(__file__).parent / "interpreted"
    command = [sys.executable, "-m", "pytest", folder, "-q", "-x", "-m", marker]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_interpreted():
    run_interpreted("not slow")


@pytest.mark.slow
def test_interpreted_slow():
    run_interpreted("slow")
