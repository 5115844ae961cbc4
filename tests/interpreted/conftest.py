"""What runs under Triton's interpreter, which must be chosen before triton is imported."""

import os

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED:  # tests/test_triton.py runs these
    collect_ignore_glob = ["test_*.py"]


def pytest_runtest_setup():
    """A file that is named is not ignored; compiled, its kernels would ask for a GPU."""
    if not INTERPRETED:
        pytest.skip("needs TRITON_INTERPRET=1")


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    import device

    device.repair_indices(monkeypatch)
    device.patch_once(monkeypatch)


@pytest.fixture
def kernels(monkeypatch):
    """The launchers, with tiles that a small matrix has several of and poisoned buffers."""
    import device

    from fastcl.kernels import contrast, contrast_common

    device.use_tiles(monkeypatch)
    device.repair_arithmetic(monkeypatch)
    monkeypatch.setattr(contrast_common, "empty", device.poisoned)
    monkeypatch.setattr(contrast_common, "BLOCK", 16)
    monkeypatch.setattr(contrast_common, "PARTS", 4)
    return contrast
