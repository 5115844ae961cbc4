"""Late interaction beside plain PyTorch and other libraries: `python -m benchmarks.max_sim`.

Loss and gradients of queries against documents of many tokens, in turn in one process; then each
once in a process of its own for its memory above the inputs, gradients included. What others have
for the CPU is the reference of their kernels, which ask for a GPU. All are first held against
float64 at a few items. Rows go to results/max_sim.csv in the place of what the same machine had
measured before, a table to results/max_sim.md. Libraries that are not installed are left out.
"""

import argparse
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as P
from torch import Tensor

import fastcl
import fastcl.functional as F

from . import report, tables
from .memory import growth
from .timing import interleaved, quantiles

T = 0.02
# A query of ColBERT, a passage of MS MARCO and its width. What is timed, and what is weighed too.
QUERY, DOCUMENT, WIDTH = 32, 180, 128
SIZES = 64, 256
# Largest difference from float64 in norm, relative; of float32.
LIMIT = 1e-4
COLUMNS = (
    "case", "variant", "version", "median_ms", "q20_ms", "q80_ms", "samples", "extra_mb",
    "difference",
)  # fmt: skip
PACKAGES = {
    "late-interaction-kernels": "late_interaction_kernels", "flash-maxsim": "flash_maxsim"
}  # fmt: skip


def _units(x: Tensor) -> Tensor:
    return P.normalize(x, dim=2)


def _contrast(scores: Tensor) -> Tensor:
    return P.cross_entropy(scores / T, torch.arange(len(scores)))


def ours(query: Tensor, document: Tensor) -> Tensor:
    return F.max_sim(query, document, temperature=T)


def plain(query: Tensor, document: Tensor) -> Tensor:
    s = torch.einsum("ntd,mud->nmtu", _units(query), _units(document))
    return _contrast(s.max(3).values.sum(2))


def late_interaction_kernels(query: Tensor, document: Tensor) -> Tensor:
    from late_interaction_kernels.reference import maxsim_reference

    return _contrast(maxsim_reference(query, document, normalize=True))


def flash_maxsim(query: Tensor, document: Tensor) -> Tensor:
    from flash_maxsim import maxsim_naive_batched

    return _contrast(maxsim_naive_batched(_units(query), _units(document)))


Loss = Callable[[Tensor, Tensor], Tensor]


def variants() -> dict[str, Loss]:
    found: dict[str, Loss] = {"fastcl": ours, "plain": plain}
    others = late_interaction_kernels, flash_maxsim
    for (name, module), loss in zip(PACKAGES.items(), others, strict=True):
        if importlib.util.find_spec(module) is not None:
            found[name] = loss
    return found


def name(n: int) -> str:
    return f"{n} x {QUERY} against {n} x {DOCUMENT}, d {WIDTH}"


def inputs(n: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (n, QUERY, WIDTH), (n, DOCUMENT, WIDTH)
    return [torch.randn(x, generator=generator).to(dtype).requires_grad_() for x in shapes]


def step(loss: Loss, tokens: list[Tensor]) -> list[Tensor]:
    """Loss and gradients."""
    for x in tokens:
        x.grad = None
    value = loss(*tokens)
    value.backward()
    return [value.detach(), *(x.grad for x in tokens)]


def difference(loss: Loss, n: int = 8) -> float:
    """Largest, in norm, of loss and gradients from those of float64."""
    exact, found = step(plain, inputs(n, torch.float64)), step(loss, inputs(n))
    pairs = zip(found, exact, strict=True)
    return max(((x.double() - y).norm() / y.norm()).item() for x, y in pairs)


def memory(loss: Loss, n: int) -> float:
    """MB above the inputs at the peak of a step, of this process."""
    step(loss, inputs(8))
    tokens = inputs(n)
    return growth(lambda: step(loss, tokens)) / 1e6


def apart(variant: str, n: int) -> float:
    """The same of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.max_sim", "--memory", variant, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(n: int, budget: float, chosen: list[str] | None = None) -> list[dict]:
    """A row per variant, or of those chosen."""
    found, tokens = variants(), inputs(n)
    found = {key: loss for key, loss in found.items() if chosen is None or key in chosen}
    differences = {key: difference(loss) for key, loss in found.items()}
    for key, value in differences.items():
        if not value <= LIMIT:
            raise SystemExit(f"{key} differs by {value:.1e}")
    calls = {key: lambda loss=loss: step(loss, tokens) for key, loss in found.items()}
    samples = interleaved(calls, "cpu", budget)
    rows = []
    for key in found:
        median, low, high = (x * 1e3 for x in quantiles(samples[key]))
        package = key if key in PACKAGES else ""
        version = importlib.metadata.version(package) if package else torch.__version__
        rows.append({
            "case": name(n), "variant": key,
            "version": fastcl.__version__ if key == "fastcl" else version,
            "median_ms": median, "q20_ms": low, "q80_ms": high, "samples": len(samples[key]),
            "extra_mb": apart(key, n), "difference": differences[key],
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """Time and memory, below each other for every machine."""
    parts = []
    for machine in report.by_machine(rows):
        ours = {r["case"]: float(r["median_ms"]) for r in machine if r["variant"] == "fastcl"}
        lines = [
            [r["case"], r["variant"], tables.milliseconds(r),
             f"{float(r['median_ms']) / ours[r['case']]:.1f}x", f"{float(r['extra_mb']):,.0f} MB"]
            for r in machine
        ]  # fmt: skip
        where = ", ".join(machine[0][key] for key in ("machine", "commit", "date"))
        names = ["queries against documents", "", "time", "of fastcl's", "above the inputs"]
        parts.append(
            f"{tables.grid(names, lines)}\n\nFloat32, forward and backward, "
            f"{machine[0]['threads']} threads: {where}.\n"
        )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.max_sim", description=__doc__)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing per variant")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="queries")
    parser.add_argument("--variants", nargs="*", help="these alone")
    parser.add_argument("--memory", nargs=2, help="a variant's alone, and of how many queries")
    arguments = parser.parse_args()
    if arguments.memory:
        variant, n = arguments.memory
        print(memory(variants()[variant], int(n)))
        return
    where, path = report.circumstances("cpu"), report.RESULTS / "max_sim.csv"
    for n in arguments.sizes:
        new = [where | row for row in measure(n, arguments.budget, arguments.variants)]
        before = report.read(path) if path.exists() else []
        report.save(report.renew(new, before), path, COLUMNS)
    text = table(report.read(path))
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
