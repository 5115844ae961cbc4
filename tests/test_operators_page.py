"""docs/operators.md says what the functions call and where the kernels are."""

import inspect
from pathlib import Path

import torch

import fastcl.functional as F
from benchmarks import operators
from fastcl import _library

# These are plain PyTorch, or arithmetic that no operator is for.
PLAIN = {
    "barlow_twins", "byol", "false_negatives", "inva_spread", "nce_normalizer", "noise_indices",
    "row_products", "simsiam", "vicreg",
}  # fmt: skip


def test_the_page_is_what_the_functions_call():
    assert operators.PAGE.read_text() == operators.page()


def test_every_public_function_is_on_it():
    named = {name for name, _ in operators.calls()}
    assert named == {x for x in F.__all__ if x not in PLAIN and callable(getattr(F, x))}
    for name, call in operators.calls():
        assert operators.operators(call), name


def test_a_function_that_calls_another_operator_is_noticed(monkeypatch):
    monkeypatch.setattr(
        operators, "calls", lambda: iter([("clip", lambda: F.sinkhorn(torch.ones(3, 2)))])
    )
    assert operators.PAGE.read_text() != operators.page()


def test_no_way_leads_back_up():
    """functional, contrast, _library, the device's file: no module imports one above it."""
    order = ["reference", "kernels", "_library", "contrast", "functional", "losses", "methods"]
    root = Path(inspect.getsourcefile(_library)).parent
    for lower, folder in enumerate(order):
        above = order[lower + 1 :]
        paths = [root / f"{folder}.py"] if folder.startswith("_") else (root / folder).glob("*.py")
        for path in paths:
            for line in path.read_text().splitlines():
                words = line.split()
                if not line.startswith(("from ..", "from .")) or "import" not in words:
                    continue
                target = words[1].lstrip(".").split(".")
                # The record of the problem is the operators' own signature.
                if target[:2] == ["contrast", "problem"] or not words[1].startswith(".."):
                    continue
                assert target[0] not in above, f"{path.name}: {line}"


def test_the_files_of_the_page_exist():
    for name in ("contrast_mean", "sigmoid_contrast", "momentum_update_"):
        found = [x for x in operators.files(name) if x]
        assert len(found) >= 3 and all((operators.ROOT / x).exists() for x in found)
