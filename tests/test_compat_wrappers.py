"""sentence-transformers' trainer over two ranks, its losses within its own wrappers."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_two_ranks_of_the_trainer():
    """The script compares curves with those of the library itself."""
    for library in ("accelerate", "datasets", "sentence_transformers"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: make test-peers")
    given = [os.path.abspath(x) for x in os.environ.get("PYTHONPATH", "").split(os.pathsep) if x]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *given]), "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launcher, "tests/trainer_ranks.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    curves = re.findall(r"^(\w*)\((\w+)\): (\d+\.\d+) to (\d+\.\d+)$", done.stdout, re.MULTILINE)
    assert len(curves) == 2 * 18  # of two ranks
    assert all(first != last for _, _, first, last in curves)
