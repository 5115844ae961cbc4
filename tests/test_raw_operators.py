"""Raw operators take anything: a misfit is an error or a number, never the end of the process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastcl._processor import processor

CALLS = Path(__file__).parent / "raw_calls.py"


def _run(what):
    """Exit status, lines and the end of what was said of one process."""
    done = subprocess.run(
        [sys.executable, CALLS, what],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr[-2000:]


@pytest.mark.skipif(processor() is None, reason="needs the compiled part")
def test_no_call_ends_the_process():
    status, lines, said = _run("0")
    assert status == 0, (lines[-1], said)
    errors = [line for line in lines if line.startswith("error")]
    assert len(errors) > 1000
    # Of our sources and of torch's headers a file may be named, not the folder it was built in.
    assert not [e for e in errors if re.search(r"/\S*/csrc/(ops/|stable/|tensor\.h)", e)]


@pytest.mark.skipif(processor() is None, reason="needs the compiled part")
def test_an_element_too_many_would_end_it():
    status, lines, _ = _run("beyond")
    assert status < 0 and lines[-1] == "beyond"
