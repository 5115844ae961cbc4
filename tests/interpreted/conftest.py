"""What runs under Triton's interpreter, which must be chosen before triton is imported."""

import os

import pytest

if os.environ.get("TRITON_INTERPRET") != "1":  # tests/test_triton.py runs these
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def kernels(monkeypatch):
    """The launchers, with tiles that a small matrix has several of and poisoned buffers."""
    import device

    from fastcl.kernels import info_nce, info_nce_common

    device.use_tiles(monkeypatch)
    device.repair_arithmetic(monkeypatch)
    monkeypatch.setattr(info_nce_common, "empty", device.poisoned)
    monkeypatch.setattr(info_nce_common, "BLOCK", 16)
    monkeypatch.setattr(info_nce_common, "PARTS", 4)
    return info_nce
