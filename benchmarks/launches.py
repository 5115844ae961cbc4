"""Which kernels a step launches on a card that is not there.

The step runs on tensors without memory (the "meta" device) that claim to be on an H200: the
dispatcher picks the CUDA implementations, their launchers run, and each launch and each operator
of PyTorch is noted instead of done. What a kernel gets compiled for follows from its arguments as
in Triton's own launcher: None, constexprs and ones are constants, the rest have a type.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from .hardware import H200

CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64",
    torch.int32: "i32", torch.int64: "i64", torch.bool: "i1", torch.uint8: "u8",
    torch.uint16: "u16",
}  # fmt: skip


# Bytes that the operators in CUDA C++ move; a list of tensors is one launch (see csrc/momentum.h).
COMPILED = {
    "queue_push_": lambda queue, pointer, rows, *_: (
        rows.numel() * (rows.element_size() + queue.element_size())
    ),
    "momentum_update_": lambda target, online, *_: sum(
        t.numel() * (2 * t.element_size() + o.element_size())
        for t, o in zip(target, online, strict=True)
    ),
}

WIDENING = ("addmm.dtype_out", "bmm.dtype_out")


@dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel."""

    kernel: JITFunction
    grid: tuple[int, ...]
    arguments: dict[str, object]  # by name, in order
    options: tuple[tuple[str, object], ...]  # num_warps, num_stages, ...

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__

    @property
    def programs(self) -> int:
        return functools.reduce(int.__mul__, self.grid, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor among the arguments, also behind a descriptor."""
        found = {}
        for name, x in self.arguments.items():
            x = x.base if isinstance(x, TensorDescriptor) else x
            if isinstance(x, Tensor):
                found[name] = x
        return found

    def specialised(self) -> tuple[dict, dict, dict]:
        """Signature, constants and attributes as `triton.compiler.ASTSource` takes them."""
        signature, constants, attributes = {}, {}, {}
        for i, (parameter, value) in enumerate(
            zip(self.kernel.params, self.arguments.values(), strict=True)
        ):
            kind = _type(parameter, value)
            signature[parameter.name] = kind
            if kind == "constexpr":
                constants[(i,)] = value
            elif _aligned(parameter, value):
                attributes[(i,)] = [["tt.divisibility", 16]]
        return signature, constants, attributes


@dataclass(frozen=True)
class Operation:
    """One operator of PyTorch: what it computes and moves."""

    name: str
    product: tuple[int, ...]  # rows, columns and depth of a matrix product, else empty
    bytes: int


def _aligned(parameter, value: object) -> bool:
    """Whether a kernel is compiled for multiples of 16, or for addresses that are."""
    if parameter.do_not_specialize or parameter.do_not_specialize_on_alignment:
        return False
    return isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0)


def _type(parameter, value: object) -> str:
    if parameter.is_constexpr or value is None:
        return "constexpr"
    if isinstance(value, TensorDescriptor):
        block = ",".join(map(str, value.block_shape))
        return f"tensordesc<{TYPES[value.base.dtype]}[{block}]>"
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, float):
        return parameter.annotation_type or "fp32"
    if value == 1 and not parameter.do_not_specialize:
        return "constexpr"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


class _Notes(TorchDispatchMode):
    """Sends fastcl's operators to their CUDA side and notes PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Launch | Operation] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace == "fastcl":
            name = function.name().removeprefix("fastcl::")
            if name in COMPILED:
                self.notes.append(Operation(name, (), COMPILED[name](*args)))
                return None
            with self:
                return function.redispatch(CUDA, *args, **kwargs)
        name = function.name().removeprefix("aten::")
        # Products into another dtype have no "meta" side in torch 2.11.
        out = kwargs["out"] if name in WIDENING else function(*args, **kwargs)
        if not name.startswith(("empty", "new_empty")) and not is_view(function, args, out):
            self.notes.append(_operation(name, args, kwargs, out))
        return out

    def launch(self, kernel: JITFunction, *args, grid, warmup=False, **kwargs) -> None:
        names = [p.name for p in kernel.params]
        given = dict(zip(names, args, strict=False))
        given |= {name: kwargs.pop(name) for name in names if name in kwargs}
        for parameter in kernel.params:
            if parameter.name not in given:
                given[parameter.name] = parameter.default
        grid = grid(given) if callable(grid) else grid
        options = tuple(sorted(kwargs.items()))
        ordered = {name: given[name] for name in names}
        self.notes.append(Launch(kernel, tuple(grid), ordered, options))


def is_view(function, args, out) -> bool:
    """Whether nothing was computed: the result is a view of, or is, an argument."""
    results = out if isinstance(out, (tuple, list)) else [out]
    storages = {x.untyped_storage()._cdata for x in _flat(args)}
    same = [x.untyped_storage()._cdata in storages for x in results if isinstance(x, Tensor)]
    writes = any(a.alias_info is not None and a.alias_info.is_write
                 for a in function._schema.arguments)  # fmt: skip
    return bool(same) and all(same) and not writes


def _flat(x: object) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for y in x:
            yield from _flat(y)


def _size(x: Tensor) -> int:
    """Bytes of the elements that there are; an expanded tensor has few."""
    elements = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        elements *= length if stride or length == 0 else 1
    return elements * x.element_size()


def _operation(name: str, args, kwargs, out) -> Operation:
    shape = ()
    given = [*_flat(args)]
    if name.split(".")[0].rstrip("_") in ("mm", "addmm", "matmul", "bmm"):
        a, b = given[-2:]  # of a batch, the products one below the other
        shape = (a.shape[:-1].numel(), b.shape[-1], a.shape[-1])
    # What is written in place or into `out` is an argument too: counted once.
    moved = {id(x): x for x in (*given, *_flat(tuple(kwargs.values())), *_flat((out,)))}
    return Operation(name, shape, sum(map(_size, moved.values())))


@contextlib.contextmanager
def noted(processors: int = H200.multiprocessors, major: int = 9) -> Iterator[list]:
    """Everything launched inside, in order, with tensors on "meta" standing for the card's."""
    notes = _Notes()
    card = SimpleNamespace(
        major=major, minor=0, multi_processor_count=processors, name="predicted",
        total_memory=141 * 10**9, shared_memory_per_block_optin=227 * 1024, L2_cache_size=50 << 20,
    )  # fmt: skip

    def nothing(*args, **kwargs):
        return contextlib.nullcontext()

    def run(kernel, *args, **kwargs):
        return notes.launch(kernel, *args, **kwargs)

    def on(target, name, new):
        return mock.patch.object(target, name, new, create=True)

    with (
        on(JITFunction, "run", run),
        on(torch.cuda, "get_device_properties", lambda device=None: card),
        on(torch.cuda, "get_device_capability", lambda device=None: (major, 0)),
        on(torch.cuda, "device_of", nothing),
        on(torch, "autocast", nothing),
        on(Tensor, "is_cuda", property(lambda self: self.device.type == "meta")),
        notes,
    ):
        yield notes.notes


def of_step(step: Callable[[], object]) -> list[Launch | Operation]:
    """What a step launches."""
    with noted() as notes:
        step()
    return notes
