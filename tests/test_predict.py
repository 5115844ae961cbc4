"""The model of the static report on inputs whose answer is known: a guide, or a pencil."""

import functools
import subprocess
import sys
from collections import Counter

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import model, predict, report, static_steps  # noqa: E402
from benchmarks.cases import Case, Update  # noqa: E402
from benchmarks.hardware import H200, LIMITS, Processor, measured, occupancy  # noqa: E402
from benchmarks.launches import Launch, Operation, of_step  # noqa: E402
from benchmarks.machine_code import Code, Tile, multiplications  # noqa: E402

LISTING = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
        /*0010*/              @!P0 BRA `(.L_x_3) ;
.L_x_0:
        /*0020*/                   UTMALDG.2D [UR8], [UR14] ;
.L_x_1:
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR16], R24 ;
        /*0040*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0050*/               @P1 BRA `(.L_x_1) ;
        /*0060*/               @P2 BRA `(.L_x_2) ;
        /*0070*/                   LDG.E R3, [R2] ;
        /*0080*/                   LDG.E R4, [R2+0x4] ;
.L_x_2:
        /*0090*/                   MUFU.EX2 R5, R5 ;
        /*00a0*/                   FADD R6, R5, R6 ;
        /*00b0*/              @!P3 BRA `(.L_x_0) ;
        /*00c0*/                   STG.E [R2], R6 ;
.L_x_3:
        /*00d0*/                   EXIT ;
.L_x_4:
        /*00e0*/                   BRA `(.L_x_4);
"""


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("warps, blocks, share", [(4, 12, 0.75), (10, 4, 0.625)])
def test_occupancy_of_the_best_practices_guide(architecture, warps, blocks, share):
    """Guide, "Calculating Occupancy": 37 registers, blocks of 128 and of 320 threads."""
    held = occupancy(architecture, 37, 0, warps)
    assert (held.blocks, held.bound) == (blocks, "registers")
    assert held.warps / 64 == share


def test_occupancy_at_the_documented_limits():
    assert occupancy(90, 32, 0, 8).warps == 64  # 32 registers still fill a multiprocessor
    assert occupancy(90, 33, 0, 8).warps == 48
    assert occupancy(90, 255, 0, 8).blocks == 1
    assert occupancy(90, 16, 0, 1) == occupancy(80, 16, 0, 1)
    assert occupancy(90, 16, 0, 1).bound == "blocks" and occupancy(86, 16, 0, 1).blocks == 16
    for architecture, kilobytes in ((80, 163), (86, 99), (90, 227)):
        assert occupancy(architecture, 64, kilobytes * 1024, 8).blocks == 1
        assert occupancy(architecture, 64, kilobytes * 1024 + 1, 8).blocks == 0
        assert LIMITS[architecture].shared == (kilobytes + 1) * 1024
    assert occupancy(90, 64, 113 * 1024, 8).blocks == 2  # 1 KB of each is the driver's
    assert occupancy(90, 64, 114 * 1024, 8).blocks == 1


def test_tensor_core_instructions():
    assert multiplications("HGMMA.64x256x16.F32.BF16") == 64 * 256 * 16
    assert multiplications("HMMA.16816.F32.BF16") == 16 * 8 * 16
    assert multiplications("FFMA") == 0


def test_the_plain_path_of_a_tile():
    """Eight steps over 128 features; the two loads of a special tile are not on the path."""
    code = Code(LISTING)
    assert len(code.loops) == 2  # tiles and features; nothing leads to the trap behind the end
    tile = code.tile(logits=64 * 128, width=128, warps=4)
    assert (tile.rounds, tile.features["tensor"], tile.features["waits"]) == (1, 8, 8)
    assert tile.features["all"] == 24
    rest = {k: tile.rest[k] for k in ("bulk", "special", "fma", "load", "tensor", "all")}
    assert rest == {"bulk": 1, "special": 1, "fma": 1, "load": 0, "tensor": 0, "all": 5}
    assert code.total["load"] == 2


def test_one_step_for_all_features_is_no_loop_over_them():
    tile = Code(LISTING).tile(logits=64 * 128, width=16, warps=4)
    assert tile.rounds == 0 and not tile.features and tile.rest["tensor"] == 1


def test_a_tile_by_hand():
    """128 x 128 logits of 128 features, 8 warps: 64 logits per thread."""
    rest = Counter(multiplications=64 * 128 * 128, special=64, fma=400, all=800, waits=2)
    time = model.tile_time(Tile(Counter(), rest, 0), warps=8, warpgroups=True, bytes=32768)
    per_clock = 790e12 / 2 / 132 / 1.83e9  # multiply-adds
    assert time.tensor == pytest.approx(128 * 128 * 128 / per_clock)
    assert time.units == 800 * 8 / 4  # four schedulers; exponentials: 64 * 8 * 32 / 16 = 1024
    assert time.alone == pytest.approx(time.tensor + 1600 + 130 + 2 * 30)
    assert time.together(1) == time.alone
    assert time.together(4) == 4 * 1600 and time.bound(4) == "other units"


def test_features_hide_behind_the_tensor_cores_and_latency_does_not():
    features = Counter(multiplications=64 * 128 * 512, all=100)
    time = model.tile_time(Tile(features, Counter(all=40), 1), 8, True, 10**7)
    assert time.alone == pytest.approx(time.tensor + 80 + 130 + 600)
    assert time.bound(1) == "L2" and time.together(1) == 10**7 / H200.l2


def test_programs_take_the_first_free_slot():
    assert model.makespan([3, 1, 1, 1, 1], 2) == 4
    assert model.makespan([5], 132) == 5 and model.makespan([], 132) == 0
    assert model.makespan([1] * 264, 132) == 2 and model.makespan([1] * 265, 132) == 3


def test_operators_are_noted_with_their_work():
    a, b = (torch.empty(4, 8, dtype=torch.bfloat16, device="meta") for _ in range(2))
    product, copy = of_step(lambda: (a @ b.T).float())
    assert product == Operation(product.name, (4, 4, 8), 2 * (32 + 32 + 16))
    assert (copy.product, copy.bytes) == ((), 2 * 16 + 4 * 16)


def test_launches_are_those_of_the_launchers():
    case = Case("nt_xent", 8192, 8192, 128, 2, torch.bfloat16)
    notes = of_step(lambda: case.step(predict.OURS.build(case), predict.inputs(case)))
    multiplying = [x for x in notes if isinstance(x, Launch) and x.name in model.PROGRAMS]
    assert multiplying
    launch = multiplying[0]
    signature, constants, _ = launch.specialised()
    assert signature["scale"] == "fp64" and signature["DEPTH"] == "constexpr"
    assert constants[(list(signature).index("logit_scale"),)] is None
    rows, columns = launch.arguments["BM"], launch.arguments["BN"]
    logits = sum(model.PROGRAMS[launch.name](launch)) * rows * columns
    # A triangle with its diagonal.
    assert 8192**2 / 2 < logits <= 8192**2 / 2 + 8192 * (rows + columns)


def test_every_case_is_predicted_and_none_below_its_limit():
    rows = report.read(predict.ROWS)
    known = [case.name for case in predict.cases()] + list(static_steps.LATE)
    assert [row["case"] for row in rows] == known
    for row in rows:
        assert float(row["predicted_ms"]) > float(row["limit_ms"]), row
    assert predict.ROWS.with_suffix(".md").read_text() == predict.table(rows)


def test_launches_take_what_they_took_on_the_card(tmp_path):
    """Rows as `python -m benchmarks.ceilings` writes them."""
    path = tmp_path / "ceilings.csv"
    assert measured(path) == {}
    for what, value in (
        ("empty Triton kernel: in a graph", 1.0),
        ("Triton kernel of 13 arguments: until it returns", 30.0),
        ("Triton kernel of 13 arguments: in a graph", 3.5),
    ):
        report.append({"what": what, "value": value, "unit": "us", "assumed": ""}, path)
    card = Processor(**measured(path))
    assert card.launch == pytest.approx(3.5e-6) and card.host == pytest.approx(30e-6)


def test_the_time_of_the_host_is_measured(tmp_path, monkeypatch):
    path = tmp_path / "host.csv"
    report.append({"case": "x", "kernels": 10, "step_us": 500.0, "launch_us": 20.0}, path)
    assert predict.host_seconds("y", path) == ""
    monkeypatch.setattr(predict, "H200", Processor(host=None))
    assert predict.host_seconds("x", path) == pytest.approx(500e-6)
    monkeypatch.setattr(predict, "H200", Processor(host=30e-6))
    assert predict.host_seconds("x", path) == pytest.approx(600e-6)


def test_every_contrast_has_its_host_time():
    rows = {row["case"]: row for row in report.read(predict.ROWS)}
    for case in predict.cases():
        seconds = predict.host_seconds(case.name)
        if isinstance(case, Update):  # one launch of CUDA C++
            assert seconds == "" == rows[case.name]["host_ms"]
        else:
            assert float(rows[case.name]["host_ms"]) == pytest.approx(seconds * 1e3, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton has a driver that runs")
def test_the_host_is_measured_over_a_driver_that_does_nothing(tmp_path):
    """As many launches as the launchers make; in another process, whose operators it changes."""
    command = [sys.executable, "-m", "benchmarks.host", "--rows", "64", "--out", tmp_path / "rows"]
    subprocess.run([*command, "--only", "CLIP 32"], check=True, cwd=report.ROOT)
    rows = report.read(tmp_path / "rows")
    cases = [case.smaller(64) for case in predict.cases() if case.name.startswith("CLIP 32")]
    assert [row["case"] for row in rows] == [case.name for case in cases]
    for row, case in zip(rows, cases, strict=True):
        step = functools.partial(case.step, predict.OURS.build(case), predict.inputs(case))
        kernels = sum(isinstance(x, Launch) for x in of_step(step))
        assert int(row["kernels"]) == kernels
        assert float(row["step_us"]) > kernels * float(row["launch_us"]) > 0
