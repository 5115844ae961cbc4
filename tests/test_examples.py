"""The examples run, and several ranks print what one process does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _losses(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return [float(x) for x in re.findall(r"loss (\d+\.\d+)", result.stdout)]


def test_plain_loop():
    losses = _losses("examples/plain_loop.py")
    assert len(losses) == 4 and losses[-1] < losses[0]


@pytest.mark.slow
def test_two_ranks_by_torchrun():
    one = _losses("examples/ddp_two_ranks.py")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = _losses(*launcher, "examples/ddp_two_ranks.py")
    assert len(one) == 20 and len(set(one)) > 10
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 2e-5
