"""One case: every variant checked against float64, then timed, then its memory taken."""

import os
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from .cases import Case, Update
from .memory import extra_memory
from .plain import PLAIN
from .timing import captured, ceiling, interleaved, quantiles
from .variant import Variant
from .variants import named, variants

CHECKED_ROWS = 512
CEILING = "the ceiling"
# Largest relative error, in norm, of a loss or gradient. A rival may round more (bfloat16 logits,
# TF32 products): its error stands in its row, and only what computes something else is left out.
LIMIT = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
RIVALS_LIMIT = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def _double(x):
    if isinstance(x, list):
        return [_double(y) for y in x]
    return x.detach().double() if x.is_floating_point() else x.clone()


def _restore(inputs: dict, fresh: dict) -> None:
    for name, x in inputs.items():
        many = isinstance(x, list)
        pairs = zip(x, fresh[name], strict=True) if many else [(x, fresh[name])]
        for old, new in pairs:
            old.detach().copy_(new)


def _words(reason: Exception) -> str:
    return (str(reason) or repr(reason)).splitlines()[0][:80]


def prepared(variant: Variant, case: Case | Update, inputs: dict) -> Callable[[], Tensor | None]:
    """The step of a variant on these inputs."""
    function = variant.build(case)
    if variant.graph:
        return captured(lambda: case.step(function, inputs))
    return lambda: case.step(function, inputs)


def error(variant: Variant, case: Case | Update, device: str) -> float:
    """Largest relative error, in norm, of loss and gradients against float64 on fewer rows."""
    small = case.smaller(CHECKED_ROWS)
    inputs = small.inputs(device, variant.dtype)
    exact = {k: _double(x) for k, x in inputs.items()}
    step = prepared(variant, small, inputs)
    if variant.graph:  # its warm-up has pushed and moved already: from the start again
        _restore(inputs, small.inputs(device, variant.dtype))
    ours = small.results(step(), inputs)
    truth = small.results(small.step(PLAIN[small.loss], exact), exact)
    pairs = zip(ours, truth, strict=True)
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)


def checked(
    case: Case | Update, device: str, libraries: bool, only: tuple[str, ...] = ()
) -> tuple[dict[str, Variant], dict[str, float], dict[str, str]]:
    """The variants that pass, all errors, and why each of the others is left out."""
    passed, errors, notes = {}, {}, {}
    for variant in variants(case, libraries=libraries, device=device):
        name = variant.name
        if only and name not in only:
            continue
        if reason := variant.refusal(case, device):
            notes[name] = reason
            continue
        try:
            errors[name] = error(variant, case, device)
        except Exception as reason:  # whatever a library raises: it is named and left out
            if name == "fastcl":
                raise
            notes[name] = f"fails: {_words(reason)}"
            continue
        limits = LIMIT if name == "fastcl" else RIVALS_LIMIT
        if errors[name] <= limits[variant.dtype or case.dtype]:
            passed[name] = variant
        elif name == "fastcl":
            raise SystemExit(f"fastcl is wrong on {case.name}: error {errors[name]:.1e}")
        else:
            notes[name] = f"wrong by {errors[name]:.0e}: not timed"
    return passed, errors, notes


def times(
    case: Case | Update, passed: dict[str, Variant], device: str, budget: float
) -> tuple[dict[str, list[float]], float, dict[str, str]]:
    """Samples of every variant, the rate of the ceiling, and what failed at full size."""
    inputs, calls, losses, notes = {}, {}, {}, {}
    for name, variant in passed.items():
        # The same tensors for all, unless a step changes them: then each has its own. So has a
        # graph: its gradients may not go through a node that another stream has made.
        key = name if case.stateful or variant.graph else variant.dtype
        if key not in inputs:
            inputs[key] = case.inputs(device, variant.dtype)
        try:
            call = prepared(variant, case, inputs[key])
            if variant.graph and case.stateful:
                _restore(inputs[key], case.inputs(device, variant.dtype))
            loss = call()
        except Exception as reason:
            if name == "fastcl":
                raise
            notes[name] = f"fails at this size: {_words(reason)}"
            continue
        losses[name] = None if loss is None else float(loss.detach())
        calls[name] = call
    for name in list(calls):  # the check against float64 had fewer rows
        ours, theirs = losses["fastcl"], losses[name]
        limit = RIVALS_LIMIT[passed[name].dtype or case.dtype]
        if ours is not None and not abs(theirs - ours) <= limit * abs(ours):
            notes[name] = f"loss {theirs:.4g} at this size, fastcl {ours:.4g}: not timed"
            del calls[name]
    top, work = ceiling(case.measure, device, case.dtype)
    samples = interleaved({CEILING: top, **calls}, device, budget)
    return samples, work / quantiles(samples.pop(CEILING))[0], notes


def measure(
    case: Case | Update, device: str, *, libraries: bool = False, only: tuple[str, ...] = (),
    budget: float = 2.0, memory: Callable[[Case | Update, str], float | str] | None = None,
) -> list[dict]:  # fmt: skip
    """One row per variant; one that cannot run or is wrong has a note in place of figures."""
    torch.compiler.reset()  # or the 9th size of a function would run uncompiled, unannounced
    if device == "cuda":
        torch.cuda.empty_cache()
    passed, errors, notes = checked(case, device, libraries, only)
    samples, rate, late = times(case, passed, device, budget)
    rows = []
    for variant in variants(case, libraries=libraries, device=device):
        name = variant.name
        if only and name not in only:
            continue
        row = {
            "case": case.name, "loss": case.loss, "n": case.n, "m": case.m, "d": case.d,
            "dtype": str(variant.dtype or case.dtype).removeprefix("torch."), "variant": name,
            "version": variant.version, "measure": case.measure, "work": case.work,
            "error": errors.get(name, ""), "note": (notes | late).get(name, ""),
            "remark": variant.remark,
        }  # fmt: skip
        if name in samples:
            median, low, high = quantiles(samples[name])
            row |= {
                "median_ms": median * 1e3, "q20_ms": low * 1e3, "q80_ms": high * 1e3,
                "samples": len(samples[name]),
                "extra_mb": memory(case, name) if memory else "",
                "rate": case.work / median, "ceiling": rate,
                "fraction": case.work / median / rate,
            }  # fmt: skip
        rows.append(row)
    return rows


def peak_elsewhere(suite: str, index: int, device: str) -> Callable[[Case, str], float | str]:
    """Extra memory in MB of a variant, from a process of its own; "" where that process ended."""

    def peak(case: Case | Update, variant: str) -> float | str:
        command = [sys.executable, "-m", "benchmarks", "--suite", suite, "--device", device]
        command += ["--memory-of", f"{index}:{variant}"]
        # glibc keeps freed blocks of up to 32 MB for later, three times what is in use in some
        # variants; this way what is freed is gone, and the peak is what was asked for.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        return float(result.stdout.split()[-1]) / 1e6 if result.returncode == 0 else ""

    return peak


def peak_on_gpu(case: Case | Update, variant: str) -> float | str:
    """The same on a GPU, whose allocator counts bytes: in this process."""
    try:
        return peak_here(named(case, variant), case, "cuda") / 1e6
    except torch.OutOfMemoryError:  # beside what the timing still holds
        return ""


def peak_here(variant: Variant, case: Case | Update, device: str) -> float:
    """Extra memory in bytes; the process should do nothing else."""
    inputs = case.inputs(device, variant.dtype)
    return extra_memory(case, variant.build(case), inputs, device)
