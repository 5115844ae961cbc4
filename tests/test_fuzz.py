"""The fuzzer itself: it reaches every public function, finds a fault, and repeats what it found."""

import dataclasses
import pickle
import random
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CASES
from fuzz import files, table, targets
from fuzz.__main__ import at_random, failure, fuzz, of_each
from fuzz.ledger import Ledger, Line

import fastcl.functional as F
from fastcl.contrast.node import row_losses
from fastcl.contrast.problem import problem

CASE = next(case for case in CASES if case.name == "nt_xent")


def test_every_public_function_is_a_target():
    reached = {name for name in F.__all__ for target in targets.TARGETS if target.startswith(name)}
    assert reached == set(F.__all__)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_seed_is_one_problem(name, monkeypatch):
    """And a few of every target are right."""
    draws = []
    monkeypatch.setattr(targets, "_other_kernels", lambda rng: draws.append(rng.random()))
    for seed in (1, 2, 1):
        assert failure(name, seed) is None
    assert draws[0] == draws[2] != draws[1]


def _planted(error: float):
    return dataclasses.replace(
        CASE, name="planted", function=lambda **arguments: CASE.function(**arguments) * (1 + error)
    )


@pytest.fixture
def fault(monkeypatch):
    """A loss that is a thousandth too large."""
    monkeypatch.setitem(targets.TARGETS, "fault", partial(table.check, case=_planted(1e-3)))
    monkeypatch.setitem(targets.TARGETS, "no fault", partial(table.check, case=_planted(0)))


def test_a_fault_is_found_and_told_with_its_seed(fault, capsys):
    assert fuzz(of_each(["no fault"], 0, 20), ["no fault"]) == 0
    assert fuzz(of_each(["fault"], 0, 40), ["fault"]) == 1
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("FAILED fault:"))
    seed, message = line.removeprefix("FAILED fault:").split(" ", 1)
    assert failure("fault", int(seed)) == message


def test_what_is_known_is_passed_over_until_it_is_larger(fault, tmp_path):
    seed = next(s for s in range(40) if failure("fault", s))
    message = failure("fault", seed)
    for error, passed in ((1e9, True), (1e-30, False)):
        path = tmp_path / "ledger.txt"
        path.write_text(f"# a comment\nfault:{seed} | error | {error} | a reason\n")
        (line,) = Ledger.read(path).lines
        assert line == Line("fault", seed, "error", error)
        assert line.explains("fault", message) == passed
        assert not line.explains("no fault", message)


def test_a_known_case_that_is_cured_is_reported(fault, monkeypatch, capsys):
    ledger = Ledger(Path("ledger.txt"), [Line("no fault", 1, "error", 1.0)])
    monkeypatch.setattr(Ledger, "read", lambda: ledger)
    assert fuzz(of_each(["no fault"], 0, 1), ["no fault"]) == 1
    assert "CURED no fault:1" in capsys.readouterr().out


def test_a_number_of_cases_is_the_same_of_a_target_whichever_others_there_are():
    alone, among = list(of_each(["b"], 7, 3)), list(of_each(["a", "b"], 7, 5))
    assert len(alone) == 3 and len(among) == len(set(among)) == 10
    assert among[5:8] == alone != list(of_each(["b"], 8, 3))


def test_seconds_draw_targets_by_the_seed():
    drawn = [list(islice(at_random(["a", "b"], seed, 60), 20)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {name for name, _ in drawn[0]} == {"a", "b"}
    assert list(at_random(["a"], 0, 0)) == []


@pytest.mark.parametrize("cosine", [0.7, 0.9])
def test_a_cosine_is_as_wrong_as_the_bound_takes_it_to_be(cosine):
    """In half steps: one deviation on average, where partial sums end near one, and never five."""
    for d in (64, 256, 512):
        q = F.unit_rows(torch.randn(2048, d, dtype=torch.float64))
        k = cosine * q + (1 - cosine**2) ** 0.5 * F.unit_rows(torch.randn_like(q))
        q, k = q.float(), k.float()
        ids = torch.arange(len(q))
        found = row_losses(problem(q, k, scale=1.0, ids=ids, normalize=False)).positive
        steps = (found - (q.double() * k.double()).sum(1)) / (torch.finfo(torch.float32).eps / 2)
        deviation = (min(d, table.SLICE) / 21) ** 0.5
        assert steps.square().mean().sqrt() < deviation
        assert steps.abs().max() < 5 * deviation
        if d == 256 and cosine == 0.9:
            assert steps.square().mean().sqrt() > 0.8 * deviation


@pytest.mark.parametrize(
    "text", ["clip:1 | part", "clip | a | 1 | b", "clip:x | a | 1 | b", ":1|a|1|b"]
)
def test_a_line_of_the_ledger_that_cannot_be_read_is_named(text, tmp_path):
    (tmp_path / "ledger.txt").write_text(f"\n{text}\n")
    with pytest.raises(ValueError, match="ledger.txt, line 2: expected NAME:SEED"):
        Ledger.read(tmp_path / "ledger.txt")


def test_layouts_are_what_they_say_and_hold_the_same_numbers():
    rng, seen = random.Random(0), set()
    for x in (torch.randn(5, 3), torch.arange(7), torch.tensor(2.0), torch.randn(2, 3, 4)):
        for _ in range(40):
            view = table.laid_out(rng)(x)
            assert torch.equal(view, x)
            seen.add((view.is_contiguous(), view.storage_offset() > 0))
    assert seen == {(True, False), (True, True), (False, False), (False, True)}


READERS = {
    "KeyError of a reader: 'what'": lambda path: {}["what"],
    "without the name of the file": lambda path: int("what"),
    "MemoryError of a reader": lambda path: np.ones(1 << 31),
    "more than 1 s": lambda path: time.sleep(3),
    "a pickle was executed": lambda path: pickle.loads(path.read_bytes()),
}


@pytest.mark.parametrize("said", READERS)
def test_a_reader_that_is_wrong_is_caught(said, monkeypatch):
    monkeypatch.setattr(files, "SECONDS", 1)
    monkeypatch.setitem(files.READERS, ".pt", READERS[said])
    with pytest.raises(AssertionError, match=said):
        files.read(".pt", pickle.dumps(files.Code()))


def test_a_whole_file_is_read_and_an_error_with_its_name_is_right(monkeypatch):
    holding_code = 0
    for suffix, contents in files.whole().items():
        assert len(contents) > 0
        for content in contents:
            holding_code += b"executed" in content
            files.read(suffix, content)
    assert holding_code >= 4
    reads = []
    monkeypatch.setitem(files.READERS, ".json", lambda path: reads.append(path.read_bytes()))
    files.read(".json", b"content")
    assert reads == [b"content"]


def test_damage_is_of_every_kind():
    rng, content = random.Random(0), bytes(range(200))
    found = [files.damaged(rng, content, b"other" * 40) for _ in range(300)]
    assert content in found
    assert {len(x) < 200 for x in found} == {len(x) > 200 for x in found} == {False, True}
    assert any(len(x) == 200 and sum(a != b for a, b in zip(x, content, strict=True)) == 1
               for x in found)  # fmt: skip
