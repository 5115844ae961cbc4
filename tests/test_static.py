"""Machine code of the kernels, without a GPU: no spills, enough shared memory, tensor cores."""

import os

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled under the interpreter", allow_module_level=True)

from benchmarks import static  # noqa: E402


def check(rows):
    rows = list(rows)
    assert rows
    for row in rows:
        assert row.spilled == 0, row
        assert row.shared <= static.SHARED_LIMIT[row.architecture], row
        if row.product:
            assert row.tensor_core > 0, row
            # ptxas serialises them, silently, where it cannot follow their registers.
            assert row.waits < row.tensor_core, row


def test_main_kernels():
    check(static.report(static.quick_builds()))


def test_a_spill_is_seen():
    """128 x 256 own rows at width 256 cannot fit, and the report says so."""
    build = static.quick_builds()[3]
    tile = build.tile._replace(rows=128, columns=256, depth=256)
    constants = build.constants | {"BM": 128, "BN": 256, "DEPTH": 256}
    (row,) = static.report([build._replace(tile=tile, constants=constants)])
    assert row.spilled > 0


@pytest.mark.slow
def test_every_configuration():
    check(static.report())


def test_compiled_part():
    rows = static.cuda_rows()
    if not rows:
        pytest.skip("no CUDA kernel was built")
    assert all(row.spilled == 0 for row in rows), rows
