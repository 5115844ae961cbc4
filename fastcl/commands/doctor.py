"""What is installed, which kernel runs where, and the command that fixes what is missing.

Plain text by the standard library and torch alone, so that it works where nothing else does.
"""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from .. import _library
from .._processor import processor
from ..functional import info_nce
from ..version import __version__
from .extras import EXTRAS, missing, remedy

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
BUILD = "make build  (from a checkout; needs a C++20 compiler)"


def report() -> str:
    """The whole report as text."""
    fixes: list[str] = []
    sections = {
        "versions": _versions(),
        "devices": _devices(fixes),
        "compiled part": _compiled(fixes),
        "which kernel runs": _kernels(fixes),
        "info_nce against float64": _checks(fixes),
        "optional packages": _extras(fixes),
        "what to do": [f"- {fix}" for fix in fixes] or ["nothing: all is there"],
    }
    lines = []
    for title, body in sections.items():
        lines += [title, *(f"  {line}" for line in body), ""]
    return "\n".join(lines).rstrip()


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _versions() -> list[str]:
    return _columns(
        [
            ("fastcl", __version__),
            ("python", platform.python_version()),
            ("torch", torch.__version__),
            ("triton", _package("triton")),
            ("system", f"{platform.system()} {platform.machine()}"),
        ]
    )


def _instructions() -> str:
    """The set that the kernels of this package take, not torch's."""
    found = processor()
    if found is None:
        return "no kernels: the compiled part is missing"
    return (
        f"{found.instruction_set} ({found.lanes} lanes of float32), "
        f"products of bfloat16: {found.pair_products}"
    )


def _devices(fixes: list[str]) -> list[str]:
    rows = [("cpu", f"{torch.get_num_threads()} threads, {_instructions()}")]
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        rows.append(
            (f"cuda:{i}", f"{p.name}, sm_{p.major}{p.minor}, {p.total_memory / 2**30:.0f} GiB")
        )
        if p.major < 8:
            fixes.append(f"cuda:{i} is older than compute capability 8.0: the reference runs there")
    if len(rows) == 1:
        built = "torch is built without CUDA" if torch.version.cuda is None else "no GPU is visible"
        rows.append(("cuda", built))
    elif find_spec("triton") is None:
        fixes.append("Triton is missing beside a GPU: pip install triton")
    return _columns(rows)


def _compiled(fixes: list[str]) -> list[str]:
    try:
        from .. import _C

        rows = [(name, text or "none") for name, text in _C.build_info().items()]
    except ImportError as error:
        fixes.append(f"the compiled part is missing, CPU operators run the reference: {BUILD}")
        reason = "not built" if "_C" in str(error) else str(error)
        return [f"{reason}; every operator still works, by its reference"]
    if not _library.COMPILED.exists():
        fixes.append(f"{_library.COMPILED.name} is missing, the reference runs: {BUILD}")
    if torch.cuda.is_available() and not _C.build_info().get("cuda"):
        fixes.append(f"built without CUDA: put nvcc on PATH, then {BUILD}")
    try:
        from .. import _jpeg

        shown = f"what views show, built with libjpeg-turbo {_jpeg.VERSION}"
        rows.append(
            ("jpeg", shown if find_spec("simplejpeg") else "whole files, without simplejpeg")
        )
    except ImportError as error:
        without = "built without libjpeg-turbo 2.1 or newer"
        rows.append(("jpeg", f"whole files, {without if '_jpeg' in str(error) else error}"))
    return _columns(rows)


def operators() -> list[str]:
    """The names of fastcl's operators, as the dispatcher has them."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted(name for name in names if name.startswith("fastcl::"))


def kernel_of(operator: str, key: str, dtype: torch.dtype) -> str:
    """What runs for an operator and a dtype on "CPU" or "CUDA".

    Returns:
        "C++" or "CUDA" for a compiled kernel, "Triton" for one registered from Python, or
        "reference" for plain PyTorch.
    """
    if not torch._C._dispatch_has_kernel_for_dispatch_key(operator, key):
        return "reference"
    entry = re.search(
        rf"^{key}: registered at (.*?)(?: ::|$)", torch._C._dispatch_dump(operator), re.MULTILINE
    )
    from_python = entry is not None and re.search(r"\.py:\d+$", entry.group(1))
    if not from_python:
        return "C++" if key == "CPU" else "CUDA"
    # Triton's matrix products are for 16 and 32 bits; the launchers hand float64 on.
    return "reference" if dtype == torch.float64 else "Triton"


def _kernels(fixes: list[str]) -> list[str]:
    keys = ["CPU"] + (["CUDA"] if torch.cuda.is_available() else [])
    rows = [("operator", "device", *DTYPES)]
    for operator in operators():
        for key in keys:
            found = (kernel_of(operator, key, dtype) for dtype in DTYPES.values())
            rows.append((operator.removeprefix("fastcl::"), key.lower(), *found))
    return _columns(rows)


def _checks(fixes: list[str]) -> list[str]:
    """Value and gradient of one small loss on every device, beside plain float64."""
    devices = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    rows = [("device", *DTYPES)]
    for device in devices:
        cells = []
        for name, dtype in DTYPES.items():
            try:
                cells.append(f"{_error(device, dtype):.0e}")
            except Exception as error:  # whatever a broken kernel raises belongs into the report
                cells.append("fails")
                text = str(error).strip().splitlines()
                reason = text[0] if text else type(error).__name__
                fixes.append(f"info_nce fails in {name} on {device}: {reason}")
        rows.append((device, *cells))
    return ["largest relative error of value and gradient, 64 x 32 rows", *_columns(rows)]


def _error(device: str, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 64, 32, generator=generator, dtype=torch.float64)
    start = torch.nn.functional.normalize(start, dim=2).to(dtype)

    def value_and_gradient(x: torch.Tensor, loss) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.clone().requires_grad_()
        value = loss(x)
        value.backward()
        return value.detach().double().cpu(), x.grad.double().cpu()

    def plain(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(x[0] @ x[1].T / 0.1, torch.arange(64))

    def fused(x: torch.Tensor) -> torch.Tensor:
        return info_nce(x[0], x[1], temperature=0.1, normalize=False)

    expected = value_and_gradient(start.double(), plain)
    actual = value_and_gradient(start.to(device), fused)
    pairs = zip(actual, expected, strict=True)
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in pairs)


def _extras(fixes: list[str]) -> list[str]:
    rows = []
    for extra in EXTRAS:
        packages = missing([extra], find_spec)
        rows.append((extra, f"missing: {', '.join(packages)}" if packages else "there"))
        if packages:
            fixes.append(remedy(packages))
    return _columns(rows)


if __name__ == "__main__":
    print(report())
