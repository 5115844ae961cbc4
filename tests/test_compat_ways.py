"""Every loss of fastcl.compat beside its original, in ways that users call them: what is trained,
how tensors lie in memory, in which dtype, under autocast, checkpointed, twice, without gradients.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peers import peer
from torch.utils.checkpoint import checkpoint

import fastcl
from benchmarks import migration, migration_prototypes
from benchmarks.migration_case import views
from benchmarks.migration_cases import CASES

ROWS = 12
# What is wide for the sake of its time.
NARROW = {"VICRegLoss": views(64, "z_a", "z_b"), "vicreg_loss_func": views(64, "z1", "z2")}
PROTOTYPES = 300
LOSSES = [
    replace(case, inputs=NARROW.get(case.name, case.inputs)) for case in CASES
    if case.home and not case.cannot and case.name not in ("update_momentum", "sinkhorn")
]  # fmt: skip


def run(function, inputs):
    """The loss, in the dtype that it has, and the gradients."""
    trained = [x for x in inputs.values() if x.requires_grad]
    loss = function(**inputs)
    return loss.detach(), *torch.autograd.grad(loss.sum(), trained)


def changed(change):
    """A way that changes the tensors of floating point."""

    def way(function, inputs):
        found = {}
        for name, x in inputs.items():
            given = change(x.detach()) if x.is_floating_point() else x
            found[name] = given.requires_grad_(x.requires_grad)
        return run(function, found)

    return way


def one_trained(place):
    def way(function, inputs):
        trained = [name for name, x in inputs.items() if x.requires_grad]
        kept = trained[place]
        some = {k: x if k == kept else x.detach() for k, x in inputs.items()}
        return run(function, some)

    return way


def of_parts(function, inputs):
    """Every second number of a wider tensor, whose gradient comes back whole."""
    wide = {
        k: torch.stack([x.detach(), x.detach() + 1], -1).requires_grad_(x.requires_grad)
        for k, x in inputs.items()
    }
    loss = function(**{k: x[..., 0] for k, x in wide.items()})
    return loss.detach(), *torch.autograd.grad(loss, [x for x in wide.values() if x.requires_grad])


def without_gradients(function, inputs):
    with torch.no_grad():
        return (function(**inputs),)


def lowered(function, inputs):
    """Its dtype is that of the library on a GPU, where sums under autocast are of 32 bits."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = function(**inputs)
    trained = [x for x in inputs.values() if x.requires_grad]
    return loss.detach().float(), *torch.autograd.grad(loss.float().sum(), trained)


def checkpointed(function, inputs):
    names = list(inputs)

    def whole(*given):
        return function(**dict(zip(names, given, strict=True)))

    return run(lambda **x: checkpoint(whole, *x.values(), use_reentrant=False), inputs)


def compiled(function, inputs):
    """In one graph, without a break."""
    torch._dynamo.reset()
    return run(torch.compile(function, fullgraph=True, backend="aot_eager"), inputs)


def backward_twice(function, inputs):
    trained, loss = [x for x in inputs.values() if x.requires_grad], function(**inputs)
    torch.autograd.grad(loss, trained, retain_graph=True)
    return loss.detach(), *torch.autograd.grad(loss * 3, trained)


EXACT, ROUNDED = 1e-4, 6e-2  # relative, in norm
WAYS = {
    "float64": (changed(torch.Tensor.double), EXACT),  # some libraries have constants of 32 bits
    "transposed": (changed(lambda x: x.transpose(0, -1).contiguous().transpose(0, -1)), EXACT),
    "parts": (of_parts, EXACT),
    "the first": (one_trained(0), EXACT),
    "the last": (one_trained(-1), EXACT),
    "no_grad": (without_gradients, EXACT),
    "checkpoint": (checkpointed, EXACT),
    "twice": (backward_twice, EXACT),
    "compiled": (compiled, EXACT),
    "bfloat16": (changed(torch.Tensor.bfloat16), ROUNDED),
    "float16": (changed(torch.Tensor.half), ROUNDED),
    "autocast": (lowered, ROUNDED),
}
# The same numbers in 32 bits.
NUMBERS = {
    "bfloat16": changed(lambda x: x.bfloat16().float()),
    "float16": changed(lambda x: x.half().float()),
    "autocast": run,
}


def called(case, side, function):
    """Loss and gradients; a library that does not take this skips the test."""
    try:
        return function(*migration.prepare(case, side, ROWS))
    except (RuntimeError, NotImplementedError) as error:
        if side == "fastcl":
            raise
        pytest.skip(f"the library does not: {error}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", LOSSES, ids=lambda c: f"{c.name} {c.size}")
def test_as_the_library(case, way, monkeypatch):
    """In 16 bits no further from the numbers of 32 bits than twice the library, and a little."""
    peer(case.home)
    monkeypatch.setattr(migration_prototypes, "WIDE", PROTOTYPES)
    if case.name == "CrossBatchMemory" and way == "checkpoint":
        pytest.skip("the memory is another in the backward, in the library too")
    function, limit = WAYS[way]
    theirs, ours = (called(case, side, function) for side in ("original", "fastcl"))
    exact = called(case, "original", NUMBERS[way]) if way in NUMBERS else theirs
    for x, y, z in zip(ours, theirs, exact, strict=True):
        narrowed = "MultiVector" in case.name and way == "float64"  # to 32 bits by the library
        assert (x.dtype == y.dtype or narrowed) and x.shape == y.shape and x.isfinite().all()
        error, rounding = ((a.double() - z.double()).norm() for a in (x, y))
        bound = limit * z.double().norm().clamp(min=1e-6)
        assert error <= bound or error <= 2 * rounding + bound


@pytest.mark.parametrize("library", sorted({case.library for case in LOSSES}))
def test_what_a_program_imported_before_the_patch_stays_as_it_was(library, monkeypatch):
    """Whatever its methods call by name."""
    monkeypatch.setattr(migration_prototypes, "WIDE", PROTOTYPES)
    cases = [case for case in LOSSES if case.library == library]
    peer(cases[0].home)
    held = [SimpleNamespace(**vars(case.module("original"))) for case in cases]

    def results():
        for case, module in zip(cases, held, strict=True):
            torch.manual_seed(0)
            yield run(case.build(module, ROWS), case.inputs(ROWS))

    before = list(results())
    fastcl.patch(library)
    try:
        after = list(results())
    finally:
        fastcl.unpatch(library)
    torch.testing.assert_close(after, before)
