"""The kernels of csrc/cuda compiled by a C++ compiler, and called as their operators are.

What C++ has no words for is rewritten to calls of tests/emulated: launches, shared memory and
assembly. A fault can be planted on the way.
"""

import ctypes
import re
import subprocess
from ctypes import c_bool, c_char_p, c_double, c_int32, c_int64, c_uint8, c_void_p
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
CUDA = ROOT / "csrc" / "cuda"
EMULATED = ROOT / "tests" / "emulated"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # as csrc/dtype.h
WORDS = (
    (r"#include <cuda.*>\n", ""),
    (r"(\w+)<<<(.*?)>>>\s*\(([^;]*)\);", r"emulated::launch(\2, [&] { \1(\3); });"),
    (r"extern __shared__ .*? uint8_t (\w+)\[\];",
     r"uint8_t* \1 = emulated::now->block->memory.get();"),
    (r"__shared__ (\w+) (\w+);", r"auto& \2 = emulated::variable<\1, __LINE__>();"),
    (r'asm\("ex2.approx.ftz.f32 %0, %1;" : "=f"\((\w+)\) : "f"\((.*)\)\);',
     r"\1 = power_of_two(\2);"),
    (r'asm volatile\("fence[^;]*;" ::: "memory"\);', ""),
)  # fmt: skip


def rewritten(path: Path) -> str:
    """A source in C++. Of hopper.h what is not assembly; the rest is in hopper_on_host.h."""
    text = path.read_text()
    if path.name == "hopper.h":
        functions = re.split(r"(?m)^(?=template <)|^(?<!>\n)(?=__device__)", text)
        text = "".join(x for x in functions if "asm" not in x) + "}\n"
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL if "<<<" in pattern else 0)
    assert not re.search(r"<<<|__shared__|\basm\b", text), path
    return text


def build(kernel: str, folder: Path, fault: tuple[str, str] | None = None) -> ctypes.CDLL:
    """csrc/cuda/<kernel>.cu as a library; a fault replaces a piece of it that occurs once."""
    folder.mkdir(exist_ok=True)
    for path in (CUDA / f"{kernel}.cu", CUDA / "hopper.h", CUDA / "tensor_map.h"):
        text = rewritten(path)
        if fault is not None and path.suffix == ".cu":
            assert text.count(fault[0]) == 1, fault[0]
            text = text.replace(*fault)
        (folder / path.name).write_text(text)
    library = folder / f"{kernel}.so"
    optimize = "-O1" if fault is None else "-O0"  # what takes longest: compiling, or running
    flags = ["-std=c++20", optimize, "-shared", "-fPIC", "-ffp-contract=off", "-w"]
    flags.append("-fno-gnu-unique")  # each library has variables of its own
    include = [f"-I{x}" for x in (folder, EMULATED, ROOT / "csrc", CUDA)]
    command = ["g++", *flags, *include, EMULATED / f"{kernel}.cpp", "-o", library]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = ctypes.CDLL(str(library))
    loaded.run.restype = c_char_p
    return loaded


class HostError(RuntimeError):
    """What the emulated GPU says is wrong with a launch."""


def _run(library, *arguments, seed: int = 1):
    ctypes.c_uint.in_dll(library, "emulated_seed").value = seed
    error = library.run(*arguments)
    if error is not None:
        raise HostError(error.decode())


def _data(x):
    return None if x is None else x.data_ptr()


class _QueuePush(ctypes.Structure):  # csrc/queue.h
    _fields_ = [
        ("queue", c_void_p), ("pointer", c_void_p), ("rows", c_void_p),
        ("queue_dtype", c_uint8), ("rows_dtype", c_uint8),
        ("size", c_int64), ("width", c_int64), ("pushed", c_int64), ("kept", c_int64),
        ("normalize", c_bool),
    ]  # fmt: skip


def queue_push_(library, queue, pointer, rows, normalize=False):
    (size, width), pushed = queue.shape, len(rows)
    kept = min(size, pushed)
    dtypes = DTYPES.index(queue.dtype), DTYPES.index(rows.dtype)
    last = rows[pushed - kept :].data_ptr()
    push = _QueuePush(
        queue.data_ptr(), pointer.data_ptr(), last, *dtypes, size, width, pushed, kept, normalize
    )
    _run(library, ctypes.byref(push))


class _MomentumPair(ctypes.Structure):  # csrc/momentum.h
    _fields_ = [
        ("target", c_void_p), ("online", c_void_p), ("count", c_int64),
        ("target_dtype", c_uint8), ("online_dtype", c_uint8),
    ]  # fmt: skip


def momentum_update_(library, target, online, momentum, momentum_tensor=None, seed=None):
    def pair(t, o):
        if not t.is_floating_point():  # bytes
            return (
                t.data_ptr(),
                o.data_ptr(),
                t.numel() * t.element_size(),
                len(DTYPES),
                len(DTYPES),
            )
        dtypes = DTYPES.index(t.dtype), DTYPES.index(o.dtype)
        return t.data_ptr(), o.data_ptr(), t.numel(), *dtypes

    pairs = (_MomentumPair * len(target))(*map(pair, target, online))
    dtype = 3 if momentum_tensor is None else DTYPES.index(momentum_tensor.dtype)
    tensor, state = (c_void_p(_data(x)) for x in (momentum_tensor, seed))
    _run(library, pairs, c_int64(len(target)), c_double(momentum), tensor, dtype, state)


class _ContrastSums(ctypes.Structure):  # csrc/contrast_sums.h
    _fields_ = [
        ("q", c_void_p), ("k", c_void_p), ("n", c_int32), ("m", c_int32), ("d", c_int32),
        ("scale", c_double), ("logit_scale", c_void_p),
        ("row_ids", c_void_p), ("col_ids", c_void_p),
        ("row_range", c_void_p), ("col_range", c_void_p),
        ("first", c_int32), ("tiles", c_int32), ("strip", c_int32),
        ("row_part", c_void_p), ("col_part", c_void_p), ("processors", c_int32),
    ]  # fmt: skip


def contrast_sums_(
    library, q, k, scale, logit_scale, row_ids, col_ids, row_range, col_range, first, tiles, strip,
    processors, row_part, col_part, seed=1,
):  # fmt: skip
    """The arguments of the operator, and the seed of the order in which the GPU does things."""
    pointers = map(_data, (logit_scale, row_ids, col_ids, row_range, col_range))
    sums = _ContrastSums(
        q.data_ptr(), k.data_ptr(), len(q), len(k), q.shape[1], scale, *pointers,
        first, tiles, strip, row_part.data_ptr(), col_part.data_ptr(), processors,
    )  # fmt: skip
    _run(library, ctypes.byref(sums), seed=seed)
