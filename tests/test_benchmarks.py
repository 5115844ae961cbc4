"""Every benchmark case and adaptor runs once, tiny, or it would rot."""

import time
from functools import partial

import pytest
import torch

from benchmarks import measure, timing
from benchmarks.cases import Case, Update
from benchmarks.memory import available
from benchmarks.peers import PEERS
from benchmarks.peers_gpu import GPU_PEERS
from benchmarks.suites import SUITES
from benchmarks.variant import Variant, anywhere
from benchmarks.variants import OURS, TORCH, bfloat16_products, named, variants

TINY = 48
CASES = {
    f"{c.name} {c.dtype}": c for s in SUITES.values() for case in s for c in [case.smaller(TINY)]
}
IN_FLOAT32 = {c.loss: c for c in CASES.values() if c.dtype == torch.float32}
LOSSES = {**IN_FLOAT32, "info_nce": Case("info_nce", TINY, TINY, 64, 3)}
RIVALS = {f"{v.name} {loss}": (v, loss) for v in TORCH for loss in v.losses}
LIBRARIES = {f"{v.name} {loss}": (v, loss) for v in PEERS for loss in v.losses}
NVIDIA = {f"{v.name} {loss}": (v, loss) for v in GPU_PEERS for loss in v.losses}


@pytest.mark.parametrize("name", CASES)
def test_case_is_right(name):
    case = CASES[name]
    assert measure.error(OURS, case, "cpu") < (1e-4 if case.dtype == torch.float32 else 3e-2)


def _check_torch(name, monkeypatch):
    variant, loss = RIVALS[name]
    monkeypatch.setattr("benchmarks.plain.CHUNK", 20)  # several chunks, the last one shorter
    assert measure.error(variant, LOSSES[loss], "cpu") < 1e-4


@pytest.mark.parametrize("name", RIVALS)
def test_pytorch_is_right(name, monkeypatch):
    """The compiled ones without code generation, which takes 10 s for each."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    _check_torch(name, monkeypatch)


@pytest.mark.slow
def test_generated_code_is_right(monkeypatch):
    _check_torch("compiled nt_xent", monkeypatch)


def installed(variant: Variant) -> None:
    if not variant.installed():
        pytest.skip(f"{variant.package} is not installed: make bench-peers installs it")


@pytest.mark.parametrize("name", LIBRARIES)
def test_library_is_right(name):
    variant, loss = LIBRARIES[name]
    installed(variant)
    assert measure.error(variant, LOSSES[loss], "cpu") < 1e-4
    assert variant.version


@pytest.mark.parametrize("name", NVIDIA)
def test_library_for_gpus_is_imported_and_refused_on_the_cpu(name, monkeypatch):
    variant, loss = NVIDIA[name]
    case = Case(loss, 64, 64, 256, 4)
    assert variant.refusal(case, "cpu") == "needs a GPU"
    installed(variant)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))  # asked at import
    assert callable(variant.build(case))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NVIDIA)
def test_library_for_gpus_is_right(name):
    variant, loss = NVIDIA[name]
    installed(variant)
    case = Case(loss, 128, 128, 256, 4, torch.bfloat16)
    assert measure.error(variant, case, "cuda") < measure.RIVALS_LIMIT[torch.bfloat16]


@pytest.mark.gpu
@pytest.mark.parametrize("case", [Case("moco_push", 16, 64, 64, 2), Update("ResNet-50")], ids=str)
def test_a_graph_computes_what_the_step_does(case):
    assert measure.error(named(case, "fastcl, CUDA graph"), case, "cuda") < 1e-4


def test_a_wrong_function_is_noticed_and_not_timed(monkeypatch):
    case = Case("clip", TINY, TINY, 64, 4)
    right = OURS.build(case)
    wrong = Variant("wrong", ("clip",), lambda _: lambda **views: 1.01 * right(**views))
    raises = Variant("raises", ("clip",), lambda _: lambda **views: torch.ones(2) @ torch.ones(3))
    few = Variant("few", ("clip",), OURS.build, outside=lambda c: f"{c.n} rows are too many")
    monkeypatch.setattr(measure, "variants", lambda *_, **__: [OURS, wrong, raises, few])
    rows = {r["variant"]: r for r in measure.measure(case, "cpu", budget=1e-3)}
    assert rows["fastcl"]["median_ms"] > 0 and rows["fastcl"]["note"] == ""
    assert rows["wrong"]["note"].startswith("wrong by 1e-02") and "median_ms" not in rows["wrong"]
    assert rows["raises"]["note"].startswith("fails: ")
    assert rows["few"]["note"] == "48 rows are too many"


def test_a_function_that_is_wrong_only_at_full_size_is_not_timed(monkeypatch):
    case = Case("clip", TINY, TINY, 64, 4)
    right = OURS.build(case)

    def build(_):
        return lambda image, text: right(image, text) * (1 if len(image) < TINY else 2)

    monkeypatch.setattr(measure, "CHECKED_ROWS", 16)
    monkeypatch.setattr(measure, "variants", lambda *_, **__: [OURS, Variant("late", (), build)])
    rows = measure.measure(case, "cpu", budget=1e-3)
    assert rows[1]["error"] < 1e-4 and "at this size, fastcl" in rows[1]["note"]


def test_variants_share_a_round_but_not_what_they_change():
    case = Case("moco_push", 8, 32, 16, 2, bfloat16=True)
    rows = {r["variant"]: r for r in measure.measure(case, "cpu", budget=1e-3)}
    assert {"fastcl", "plain", "fastcl bf16"} <= set(rows)
    left_out = rows.pop("plain bf16") if not bfloat16_products() else None
    assert left_out is None or "bf16 products" in left_out["note"]
    assert all(r["median_ms"] > 0 for r in rows.values())
    assert rows["fastcl bf16"]["dtype"] == "bfloat16"


def test_a_size_beyond_the_memory_is_refused_before_it_is_tried():
    plain = named(Case("nt_xent", 64, 64, 128, 2), "plain")
    huge = Case("nt_xent", 2**20, 2**20, 128, 2)
    assert plain.refusal(huge, "cpu") == "would need 16493 GB"
    assert plain.refusal(huge.smaller(64), "cpu") == ""
    assert OURS.refusal(huge, "cpu") == ""
    assert 0 < available("cpu") < 2**50


def test_an_extra_matrix_is_measured():
    case = Case("clip", 2048, 2048, 8, 4)
    plain, ours = (measure.peak_here(named(case, v), case, "cpu") for v in ("plain", "fastcl"))
    assert ours < 2048**2 * 4 < plain


def test_every_case_has_fastcl_first_and_plain_pytorch():
    for case in (c for suite in SUITES.values() for c in suite):
        names = [v.name for v in variants(case)]
        assert names[0] == "fastcl" and "plain" in names
        assert len(set(names)) == len(names)
        assert case.work > 0
    assert anywhere(case) == ""


def test_sizes_of_the_networks():
    assert round(Update("ResNet-50").n / 1e5) == 256  # 25.6 million parameters
    assert round(Update("ViT-L").n / 1e6) == 303


def test_interleaving_spends_as_much_on_every_variant():
    calls = {"quick": 0, "slow": 0}

    def call(name, duration):
        def run():
            calls[name] += 1
            time.sleep(duration)

        return run

    samples = timing.interleaved(
        {"quick": call("quick", 1e-3), "slow": call("slow", 60e-3)}, "cpu", budget=0.2
    )
    assert len(samples["slow"]) == 5 and len(samples["quick"]) > 20
    assert min(samples["slow"]) >= 60e-3 > min(samples["quick"]) >= 1e-3


def test_samples_end_where_one_call_is_the_whole_budget():
    assert [timing._samples(cost, 2.0) for cost in (1e-3, 0.1, 3, 15, 60)] == [100, 20, 5, 3, 1]


def test_a_pause_moves_no_quantile():
    calm = [1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0]
    median, low, high = timing.quantiles([*calm, 500.0])
    assert (median, low, high) == pytest.approx((1.0, 0.9, 1.1))


@pytest.mark.parametrize("kind", ["FLOP", "B"])
def test_the_ceiling_counts_its_work(kind):
    call, work = timing.ceiling(kind, "cpu", torch.float32)
    call()
    assert work == (2.0 * 2048**3 if kind == "FLOP" else 2.0 * 2**26 * 4)
