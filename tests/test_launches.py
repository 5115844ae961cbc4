"""What is launched on a card that is not there: where, with how much memory, how rounded."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forked import printed

pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler.compiler import make_backend  # noqa: E402
from triton.runtime.jit import create_function_from_signature  # noqa: E402

import fastcl.functional as F  # noqa: E402
from benchmarks.launches import Launch, of_step  # noqa: E402
from fastcl import _library  # noqa: E402
from fastcl.contrast.problem import Problem  # noqa: E402
from fastcl.kernels import contrast_config as config  # noqa: E402


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


def scalars():
    return meta(dtype=torch.float32), meta(dtype=torch.float32)


def launches(step):
    return [x for x in of_step(step) if isinstance(x, Launch)]


@pytest.mark.parametrize("name", _library.TRITON)
@pytest.mark.parametrize("before", [(), (None,), (None, 3.0, ())], ids=["first", "second", "later"])
@pytest.mark.parametrize("listed", [False, True])
def test_kernels_launch_on_the_device_of_their_tensors(name, before, listed, monkeypatch):
    """Triton takes the current device; tensors may lie on another one."""
    current, x = [], torch.empty(3)

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(tensor)
        yield
        current.pop()

    def launcher(*arguments):
        assert len(current) == 1 and current[0] is x
        return "launched"

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(_library, "import_module", lambda *_: SimpleNamespace(**{name: launcher}))
    launch = _library._triton(name, _library.TRITON[name])
    rest = torch.empty(4), *[None] * len(Problem._fields)
    assert launch(*before, [x] if listed else x, *rest) == "launched" and not current


def test_the_documented_step_can_be_captured(monkeypatch):
    """docs/cuda-graphs.md on tensors without memory: to read one is an error, as in a capture."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    page = (Path(__file__).resolve().parents[1] / "docs" / "cuda-graphs.md").read_text()
    code = page.split("```python\n")[1].split("run = graphed")[0]
    names = {}
    exec(code.replace('"cpu"', '"meta"'), names)
    found = {x.name for x in of_step(names["step"])}
    assert {"sums_kernel", "weights_kernel", "queue_push_", "momentum_update_"} <= found
    assert found.isdisjoint({"_to_copy", "copy_"})  # from the host, a copy waits for it
    with pytest.raises(RuntimeError, match="meta"):
        of_step(lambda: names["step"]().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("loss", ["nt_xent", "clip", "siglip"])
def test_a_chunk_of_weights_takes_128_mb_in_every_dtype(loss, dtype):
    """Of 16,384 x 16,384 weights, which would be 512 MB and more."""
    n = 8192 if loss == "nt_xent" else 16384
    scalars = {"nt_xent": (), "clip": (10.0,), "siglip": (10.0, -10.0)}[loss]
    rows = (meta(n, 384, dtype=dtype) for _ in range(2))
    found = launches(lambda: getattr(F, loss)(*rows, *scalars).backward())
    largest = max(
        x.untyped_storage().nbytes() for launch in found for x in launch.tensors().values()
    )
    assert 2**26 <= largest <= 2**27


def test_a_chunk_of_rows_is_ten_launches():
    """InfoNCE in 2 and in 8 chunks of rows; what the ids of a tile span is found once for all."""

    def count(n):
        return len(of_step(lambda: F.info_nce(meta(n, 512), meta(n, 512)).backward()))

    assert count(16384) <= 35 and count(32768) - count(16384) <= 60


@pytest.mark.parametrize("loss", ["nt_xent", "clip", "siglip", "info_nce"])
def test_no_gradient_is_filled_with_zeros(loss):
    """The first product of a chunk starts it."""
    scale = {"clip": scalars()[:1], "siglip": scalars()}.get(loss, ())
    notes = of_step(lambda: getattr(F, loss)(meta(4096, 384), meta(4096, 384), *scale).backward())
    assert not [x for x in notes if "zero" in x.name and x.bytes >= 2**20]


ASKED = {
    "": "ieee",
    "products.allow_tf32 = True": "tf32",
    "torch.set_float32_matmul_precision('high')": "tf32",
    "torch.set_float32_matmul_precision('medium')": "tf32",
    "products.fp32_precision = 'tf32'": "tf32",
    "torch.backends.fp32_precision = 'tf32'": "tf32",
    "torch.backends.fp32_precision = 'tf32'; products.fp32_precision = 'ieee'": "ieee",
    "products.allow_tf32 = True; products.allow_tf32 = False": "ieee",
}


@pytest.fixture(scope="module")
def rounding():
    """Each in a process of its own: they exclude each other."""
    program = """
import torch
from fastcl.kernels import contrast_config as config
products = torch.backends.cuda.matmul
{asked}
print(config.product_precision(torch.float32), config.product_precision(torch.bfloat16))
"""
    imports = "import torch, fastcl.kernels.contrast_config"
    return printed({asked: program.format(asked=asked) for asked in ASKED}, imports)


@pytest.mark.parametrize("asked", ASKED)
def test_float32_products_round_as_asked(rounding, asked):
    """In either of PyTorch's ways."""
    single, half = rounding[asked].split()
    assert half == "ieee" and single == ASKED[asked]


SIZES = (256, 255, 250, 100, 1000, 1024, 2000, 2048, 4096, 4000, 8192, 8191, 16384, 32768, 333, 48,
         3, 1)  # fmt: skip
STEPS = {  # by batch size; the most kernels that one and all sizes may need
    "nt_xent": (lambda n: F.nt_xent(meta(n, 128), meta(n, 128)), 15),
    "clip": (lambda n: F.clip(meta(n, 512), meta(n, 512), meta(dtype=torch.float32)), 25),
    "siglip": (lambda n: F.siglip(meta(n, 768), meta(n, 768), *scalars()), 6),
    "moco": (lambda n: F.moco(meta(n, 128), meta(n, 128), meta(65536, 128).detach()), 6),
    "info_nce": (lambda n: F.info_nce(meta(n, 512), meta(n, 512)), 13),
}


def kernels(step):
    """What Triton's launcher keeps apart: it compiles once for each."""
    backend, found = make_backend(GPUTarget("cuda", 90, 32)), set()
    for x in launches(step):
        bind = create_function_from_signature(x.kernel.signature, x.kernel.params, backend)
        found.add((x.name, str(bind(*x.arguments.values())[1]), x.options))
    return found


@pytest.mark.parametrize("loss", STEPS)
def test_another_batch_size_compiles_little(loss):
    """At most 3 new kernels for an odd last batch, or any other size."""
    step, most = STEPS[loss]
    found = kernels(lambda: step(SIZES[0]).backward())
    for n in SIZES[1:]:
        new = kernels(lambda n=n: step(n).backward()) - found
        assert len(new) <= 3, (n, sorted(new))
        found |= new
    assert len(found) <= most


def test_tiles_and_strips_are_found_once_for_a_shape():
    for loss, (step, _) in STEPS.items():
        launches(lambda step=step: step(777).backward())
        before = config.strips.cache_info().misses, config.tiles.cache_info().misses
        launches(lambda step=step: step(777).backward())
        assert (config.strips.cache_info().misses, config.tiles.cache_info().misses) == before, loss
