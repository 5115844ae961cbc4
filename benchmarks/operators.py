"""Which operator is under which public function, and where each device has its kernel.

``python -m benchmarks.operators`` writes docs/operators.md from what the functions call and from
what is registered.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastcl.functional as F
from fastcl import _library, reference

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operators.md"
HEAD = """# From a function to its kernel

`fastcl.functional` makes of its arguments a problem (`fastcl/contrast/problem.py`), an autograd
node takes it to an operator (`fastcl/contrast/node.py` and `sigmoid.py`, or in the function's own
file), and PyTorch's dispatcher takes the operator to the device's file (`fastcl/_library.py`): four
hops from any loss to its kernel. Made by `python -m benchmarks.operators`.

"""


class _Recorder(TorchDispatchMode):
    """The names of the fastcl operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "fastcl":
            self.names.append(func._schema.name.split("::")[1])
        return func(*args, **(kwargs or {}))


def _rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Every public function that is more than plain PyTorch, on a few rows."""
    n, d = 6, 4
    z0, z1, ids = _rows(n, d), _rows(n, d), torch.arange(n)
    fixed, index = F.unit_rows(_rows(9, d)).detach(), torch.arange(18).view(6, 3) % 9
    one = torch.tensor(1.0)
    queue, pointer = fixed.clone(), torch.zeros((), dtype=torch.int64)
    two, four = (z0, z1), (z0, z1, z0, z1)
    yield "bank_update_", lambda: F.bank_update_(queue, ids, z0)
    yield "clip", lambda: F.clip(*two, 10.0)
    yield "cmc", lambda: F.cmc(*two, fixed, fixed, index, normalizer_l=1.0, normalizer_ab=1.0)
    thin = _rows(n, 3).abs(), _rows(n, 3).abs()
    yield "contrast", lambda: F.contrast(z0, z1, margin=0.1) + F.contrast(z0, z1, targets=thin)
    yield "cpc", lambda: F.cpc(_rows(2, n, d), _rows(n, d), _rows(2, d, d))
    yield "dcl", lambda: F.dcl(*two)
    yield "dclw", lambda: F.dclw(*two)
    yield "debiased", lambda: F.debiased(*two)
    yield "dim_dv", lambda: F.dim_dv(_rows(n, d, 3), _rows(n, d, 1))
    yield "dim_jsd", lambda: F.dim_jsd(_rows(n, d, 3), _rows(n, d, 1))
    yield "dim_nce", lambda: F.dim_nce(_rows(n, d, 3), _rows(n, d, 1))
    yield "dino", lambda: F.dino([z0, z1], [z1, z0])
    yield "flat_nce", lambda: F.flat_nce(*two)
    yield "hcl", lambda: F.hcl(*two)
    yield "info_nce", lambda: F.info_nce(*two)
    yield "inst_disc", lambda: F.inst_disc(z0, fixed, ids)
    yield "matryoshka", lambda: F.matryoshka(*two, widths=(2, 4))
    yield "max_sim", lambda: F.max_sim(_rows(3, 2, d), _rows(3, 4, d))
    yield "mil_nce", lambda: F.mil_nce(z0, _rows(n, 2, d), temperature=0.1)
    yield "moco", lambda: F.moco(*two, fixed)
    yield "moco_v3", lambda: F.moco_v3(*four)
    yield "momentum_update_", lambda: F.momentum_update_([queue], [fixed], 0.9)
    yield "nce", lambda: F.nce(z0, fixed, index, normalizer=1.0)
    yield "negative_sampling", lambda: F.negative_sampling(z0, _rows(9, d), index)
    yield "nt_xent", lambda: F.nt_xent(*two)
    yield "queue_push_", lambda: F.queue_push_(queue, pointer, z0.detach())
    image, views = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.ones(1, 1, 13)
    views[..., [0, 1, 8, 9, 10, 11]] = 0
    yield "random_views", lambda: F.random_views(image, views, size=2, kernel=1)
    yield "retrieval", lambda: F.retrieval(*two)
    yield "rince", lambda: F.rince(*two)
    yield "siglip", lambda: F.siglip(*two, 10.0, one)
    yield "sim_cse", lambda: F.sim_cse(*two, _rows(n, d))
    yield "sinkhorn", lambda: F.sinkhorn(_rows(n, d).detach())
    yield "sup_con", lambda: F.sup_con(z0, ids // 2)
    yield "swav", lambda: F.swav([z0, z1])
    yield "unit_rows", lambda: F.unit_rows(z0)


def operators(call: Callable[[], object]) -> list[str]:
    """Those that a call and its backward run, in the order of their first run."""
    with _Recorder() as recorder:
        out = call()
        if isinstance(out, Tensor) and out.requires_grad:
            out.sum().backward()
    return list(dict.fromkeys(recorder.names))


def files(name: str) -> tuple[str, str, str, str]:
    """Of an operator: the reference, the kernels in Triton, in C++ and in CUDA C++."""
    found = inspect.getsourcefile(getattr(reference, name))
    module = _library.TRITON.get(name)
    triton = "" if module is None else f"fastcl/kernels/{module}.py"
    places = {"CPU": "", "CUDA": ""}
    for path in sorted((ROOT / "csrc" / "ops").glob("*.cpp")):
        device = None
        for line in path.read_text().splitlines():
            device = (re.search(r"LIBRARY_IMPL\(fastcl, (\w+)", line) or (0, device))[1]
            if f'"{name}"' in line and "impl(" in line:
                places[device] = str(path.relative_to(ROOT))
    return str(Path(found).relative_to(ROOT)), triton, places["CPU"], places["CUDA"]


def page() -> str:
    """docs/operators.md."""
    lines, seen = ["| function | operators |", "| --- | --- |"], []
    for name, call in calls():
        found = operators(call)
        seen += found
        lines.append(f"| `{name}` | {', '.join(f'`{x}`' for x in found)} |")
    lines += [
        "",
        "| operator | reference | Triton | C++ | CUDA C++ |",
        "| --- | --- | --- | --- | --- |",
    ]
    others = [name for name in _library.TRITON if name not in seen] + ["contrast_sums_"]
    for name in sorted({*seen, *others}):
        cells = [f"`{x}`" if x else "" for x in files(name)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
