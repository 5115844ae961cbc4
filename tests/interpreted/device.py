"""What the interpreter stands for: small tiles, bfloat16 as on the device, poisoned memory."""

from functools import cache
from types import SimpleNamespace

import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from fastcl.kernels import contrast_config as config


def repair_arithmetic(monkeypatch):
    """Products and rounding as on the device.

    The interpreter keeps bfloat16 as uint16; its dot multiplies those integers, its cast
    truncates. Its float32 dot adds in the order of a BLAS, another one for a transposed operand:
    the device has one chain of fused multiply-adds, the same bits in every kernel. Before Triton
    3.9 its fma rounds the product as well, which is what fma is there to avoid.
    """

    def widen(x):
        narrow = x.dtype.scalar.name == "bf16"
        data = (x.data.astype("uint32") << 16).view("float32") if narrow else x.data
        return data.astype("float64")  # holds products exactly

    def create_dot(self, a, b, acc, *_):
        a, b, total = widen(a), widen(b), acc.data
        for index in range(a.shape[-1]):
            total = (a[:, index, None] * b[index] + total).astype("float32")
        return TensorHandle(total, acc.dtype.scalar)

    plain_fma, plain_cast = InterpreterBuilder.create_fma, InterpreterBuilder.cast_impl

    def create_fma(self, x, y, z):
        if z.dtype.scalar.name != "fp32":
            return plain_fma(self, x, y, z)
        total = x.data.astype("float64") * y.data + z.data
        return TensorHandle(total.astype("float32"), z.dtype.scalar)

    def cast_impl(self, x, to):
        if (x.dtype.scalar.name, to.scalar.name) != ("fp32", "bf16"):
            return plain_cast(self, x, to)
        bits = x.data.view("uint32")  # to nearest, ties to even
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return TensorHandle(bits.astype("uint16"), to.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "create_fma", create_fma)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast_impl)


def repair_indices(monkeypatch):
    """A tensor of one element as a number, which numpy 2.4 refuses to the interpreter of 3.6."""
    patch = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_lang_tensor)


def patch_once(monkeypatch):
    """Triton's language is made the interpreter's where it is not yet.

    Its own code looks through all of the language at every call of a device function, which is
    most of its time.
    """
    patch = interpreter._patch_lang

    @cache
    def languages(function):
        return [x for x in function.__globals__.values() if x is tl or x is tl.core]

    def patch_lang(function):
        if any(tl.core.is_builtin(x.load) for x in languages(function)):
            return patch(function)
        return interpreter._LangPatchScope()  # nothing to undo

    monkeypatch.setattr(interpreter, "_patch_lang", patch_lang)


def use_tiles(monkeypatch, chunked=False, bulk=False, launch_tiles=2, processors=3):
    """Tiles of 16, several launches per forward, several chunks per gradient."""

    def plan(q, k):
        width = max(16, 1 << (q.shape[1] - 1).bit_length())
        loop, own = config.Tile(16, 16, 16, 1, 1), config.Tile(16, 16, width, 1, 1)
        sums = loop if chunked else own
        own = None if chunked or q.shape[1] > 256 else own
        return config.Plan(sums, own, own, loop, bulk, processors, "ieee")

    monkeypatch.setattr(config, "plan", plan)
    monkeypatch.setattr(config, "supported", lambda q: q.dtype != torch.float64)
    monkeypatch.setattr(config, "POSITIVES", config.Tile(16, 16, 16, 1, 1))
    monkeypatch.setattr(config, "SCAN", 2)
    monkeypatch.setattr(config, "LAUNCH_TILES", launch_tiles)
    monkeypatch.setattr(config, "chunk_size", lambda itemsize: 32)


def poisoned(like, *shape, dtype=torch.float32):
    out = torch.empty(shape, dtype=dtype, device=like.device)
    return out.fill_(torch.nan if dtype.is_floating_point else -(2**30))


def hopper():
    """What torch.cuda.get_device_properties says of an H200, as far as it is asked."""
    return SimpleNamespace(major=9, minor=0, multi_processor_count=132)
