"""What a step of fastcl costs the host: `python -m benchmarks.host`, where there is no GPU.

All of its own path runs, from the functions through autograd and the dispatcher to the launchers
and Triton's, on tensors without memory, over a driver that runs nothing (idle_driver.c, which a C
compiler builds here). An operator of PyTorch returns at once what it returned before: its "meta"
side in Python is slower than CUDA's in C++. So what the driver, the allocator and cuBLAS take is
left out. A row per case of results/host.csv: microseconds of a step, and of a launch of Triton's in
it, each of the best of many steps.
"""

import argparse
import contextlib
import ctypes
import gc
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import triton
import triton.backends.nvidia.driver as nvidia
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from fastcl import _library, reference

from . import report
from .cases import Case
from .hardware import H200
from .launches import WIDENING as PRODUCTS
from .launches import is_view
from .predict import HOST, cases, inputs
from .variants import OURS

SOURCE = Path(__file__).with_name("idle_driver.c")
BUILT = report.ROOT / "build" / "idle_driver"
# Operators whose "meta" side is in C++ too.
QUICK = ("empty.", "empty_strided", "new_empty", "detach")
STEPS = 200  # of a case, within SECONDS; at least 10
SECONDS = 5.0


class _Idle(nvidia.CudaDriver):
    """Triton's driver for the one card that there is said to be."""

    def __init__(self) -> None:
        self.utils = nvidia.CudaUtils()
        self.launcher_cls = nvidia.CudaLauncher
        self.get_device_capability = lambda device=None: (9, 0)
        self.get_current_stream = lambda device: 0
        self.get_current_device = lambda: 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def _build() -> None:
    """The driver, loaded before Triton asks for one by the same name."""
    library = BUILT / "libcuda.so.1"
    if not library.exists() or library.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        include = Path(nvidia.__file__).parent / "include"
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-I", include,
             SOURCE, "-o", library], check=True,
        )  # fmt: skip
    os.environ["TRITON_LIBCUDA_PATH"] = str(BUILT)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


class _Recorder(TorchDispatchMode):
    """What every operator of PyTorch returns in a step; fastcl's launch."""

    def __init__(self, launchers: dict[str, Callable]) -> None:
        super().__init__()
        self.launchers, self.found = launchers, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.name().split("::")[1]
        if function.namespace == "fastcl":
            with self:
                return self.launchers.get(name, lambda *_, **__: None)(*args, **kwargs)
        if name in PRODUCTS:
            return kwargs["out"]
        if function._can_decompose():
            with self:
                return function.decompose(*args, **kwargs)
        out = function(*args, **kwargs)
        works = isinstance(out, Tensor) and not is_view(function, args, out)
        if works and not name.startswith(QUICK):
            self.found.setdefault(function, []).append(out)
        return out


def _written(*args, out: Tensor | None = None, **kwargs) -> Tensor:
    return args[0] if out is None else out


def _again(function, outputs: list[Tensor]) -> Callable[..., Tensor]:
    """A function that returns what it writes, or results like these in turn."""
    if any(x.alias_info for x in function._schema.arguments):
        return _written
    following = itertools.cycle((x.shape, x.stride(), x.dtype) for x in outputs)

    def replayed(*args, **kwargs):
        shape, stride, dtype = next(following)
        return torch.empty_strided(shape, stride, dtype=dtype, device="meta")

    return replayed


@contextlib.contextmanager
def _operators(step: Callable[[], object]) -> Iterator[None]:
    """On "meta", fastcl's operators launch, and PyTorch's return what they do in this step."""
    launchers = {"sinkhorn": reference.sinkhorn}  # is others of fastcl's, one after another
    launchers |= {name: _library._triton(name, x) for name, x in _library.TRITON.items()}
    with _Recorder(launchers) as recorder:
        step()
    ours = torch.library.Library("fastcl", "IMPL", "Meta")
    theirs = torch.library.Library("aten", "IMPL", "Meta")
    for name, launcher in launchers.items():
        ours.impl(name, launcher, allow_override=True)
    for name in PRODUCTS:
        theirs.impl(name, _written, allow_override=True)
    for function, outputs in recorder.found.items():
        theirs.impl(function, _again(function, outputs), allow_override=True)
    try:
        yield
    finally:
        ours._destroy()
        theirs._destroy()


@contextlib.contextmanager
def idle() -> Iterator[None]:
    """Launches on tensors of the "meta" device go to the driver that runs nothing."""
    _build()
    driver.set_active(_Idle())
    card = SimpleNamespace(
        major=9, minor=0, multi_processor_count=H200.multiprocessors, L2_cache_size=50 << 20,
        shared_memory_per_block_optin=227 * 1024, total_memory=141 * 10**9, name="idle",
    )  # fmt: skip

    def on(target, name, new):
        return mock.patch.object(target, name, new, create=True)

    with (
        on(torch.cuda, "get_device_properties", lambda device=None: card),
        on(torch.cuda, "get_device_capability", lambda device=None: (9, 0)),
        on(torch.cuda, "device_of", lambda tensor: contextlib.nullcontext()),
        on(Tensor, "is_cuda", property(lambda self: self.device.type == "meta")),
    ):
        yield


def _best(call: Callable[[], object], count: int) -> float:
    """Seconds of the fastest."""
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return min(found)


def _launches(step: Callable[[], object], count: int) -> tuple[int, float]:
    """Kernels of Triton in a step, and seconds of them all in the fastest."""
    run, times, found = JITFunction.run, [], []

    def timed(self, *args, **kwargs):
        begin = time.perf_counter()
        kernel = run(self, *args, **kwargs)
        times.append(time.perf_counter() - begin)
        return kernel

    with mock.patch.object(JITFunction, "run", timed):
        for _ in range(count):
            times.clear()
            step()
            found.append(sum(times))
    return len(times), min(found)


def measure(case: Case) -> dict:
    tensors, function = inputs(case), OURS.build(case)

    def step() -> None:
        case.step(function, tensors)

    with _operators(step):
        count = max(10, min(STEPS, int(SECONDS / _best(step, 2))))
        gc.disable()
        try:
            whole, (kernels, seconds) = _best(step, count), _launches(step, count)
        finally:
            gc.enable()
    return {
        "case": case.name, "kernels": kernels, "step_us": whole * 1e6,
        "launch_us": seconds / kernels * 1e6,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.add_argument("--out", type=Path, default=HOST, help="file of the rows")
    parser.add_argument("--only", default="", help="how the names of the cases begin")
    parser.add_argument("--rows", type=int, help="of every case, at most")
    options = parser.parse_args()
    where = report.circumstances("cpu") | {"triton": triton.__version__}
    options.out.unlink(missing_ok=True)
    with idle():
        for case in cases():
            if not isinstance(case, Case) or not case.name.startswith(options.only):
                continue  # momentum is one launch of CUDA C++
            row = measure(case.smaller(options.rows) if options.rows else case)
            report.append(where | row, options.out)
            print("{case:34} {kernels:4} kernels, {step_us:8.1f} us; {launch_us:5.1f} us a launch"
                  .format(**row), flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
