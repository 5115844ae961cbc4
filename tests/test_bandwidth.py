"""The bandwidth benchmark and the tuner, tiny: every variant right, tables out of rows."""

import pytest
import torch

from benchmarks import bandwidth
from benchmarks.bandwidth import Push
from benchmarks.cases import Update

TINY = (
    Update("ResNet-50", limit=3),
    Update("ViT-L", torch.bfloat16, limit=3),
    Push(32, 16, 64),
    Push(32, 16, 64, torch.bfloat16),
)


@pytest.mark.parametrize("case", TINY, ids=lambda c: f"{c.name} {c.dtype}")
def test_every_variant_is_right_or_says_why_not(case):
    rows = bandwidth.measure(case, "cpu", budget=0.01)
    assert {row["variant"] for row in rows} == set(bandwidth.variants(case))
    for row in rows:
        mixed = row["variant"] in ("_foreach_lerp_", "AveragedModel") and case.dtype.itemsize == 2
        assert mixed == bool(row["note"]), row
        assert mixed or (row["median_ms"] > 0 and row["gb_s"] > 0 and row["share"] > 0)
    assert rows[0]["bytes"] == case.work


def test_a_wrong_variant_is_noticed():
    def forgets(queue, pointer, rows):
        queue[: len(rows)] = rows

    assert bandwidth.error(TINY[2], forgets, "cpu") > bandwidth.LIMIT[torch.float32]


def test_table():
    rows = [
        {
            "case": "push 3 of 8 x 2", "dtype": "float32", "variant": name, "note": note,
            "median_ms": time, "gb_s": "100", "share": "0.9", "machine": "a card", "threads": "1",
            "torch": "2.13", "commit": "abc", "date": "2026-01-01", "load": "0.1",
        }
        for name, time, note in (("fastcl", "1", ""), ("other", "2", ""), ("last", "", "fails: x"))
    ]  # fmt: skip
    lines = bandwidth.table(rows).splitlines()
    assert lines[0] == "| case | fastcl | rate | of a copy's rate | other | last |"
    assert lines[2] == "| push 3 of 8 x 2, float32 | 1 ms | 100 GB/s | 90% | 2.0x | - |"
    assert lines[-1] == "Not timed: last on push 3 of 8 x 2: fails: x."


def test_candidates_of_the_tuner_have_their_places():
    pytest.importorskip("triton")
    from benchmarks import tune
    from benchmarks.cases import Case
    from fastcl.kernels import contrast_config as config

    wide = Case("clip", 4096, 4096, 512, 4, torch.bfloat16)
    assert {place for place, _ in tune.candidates(wide)} == {"sums", "weights"}
    narrow = Case("moco", 256, 4096, 128, 2, torch.bfloat16)
    assert {place for place, _ in tune.candidates(narrow)} == {"frozen"}
    pair = Case("nt_xent", 4096, 4096, 128, 2, torch.bfloat16)
    tried = list(tune.candidates(pair))
    assert {place for place, _ in tried} == {"sums", "own"}
    place, tile = next(x for x in tried if x[1] != getattr(config.tiles(9, 128, 2, "ieee"), x[0]))
    with tune.replaced(place, tile):
        assert getattr(config.tiles(9, 128, 2, "ieee"), place) == tile
    assert getattr(config.tiles(9, 128, 2, "ieee"), place) != tile
