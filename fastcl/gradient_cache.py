"""The gradient cache: batches whose encoder activations do not fit, with the exact gradient."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import get_device_states, set_device_states

from . import _check

Encoder = Callable[..., Tensor | Sequence[Tensor]]
Inputs = Tensor | tuple | list | Mapping


def cached_step(
    encoders: Sequence[Encoder],
    inputs: Sequence[Inputs],
    loss: Callable[..., Tensor],
    *,
    chunk_size: int | Sequence[int],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> Tensor:
    """Forward and backward of a loss over a batch that is encoded in chunks.

    Equal to ``value = loss(*(cat([encoder(c) for c in x.split(chunk_size)]) for encoder, x in
    zip(encoders, inputs))); value.backward()``, with the activations of one chunk in memory at a
    time.

    Every chunk is encoded twice: once without gradient for the embeddings of the whole batch, from
    which loss and embedding gradients are formed; and once more, from the same random state and
    module buffers, to take its gradient to the parameters. Gradients are added to `.grad`, those
    of parameters inside `loss` too. Runs under the caller's autocast.

    A DistributedDataParallel or FSDP2 encoder communicates gradients in its last backward only;
    DistributedDataParallel not at all inside the caller's `no_sync`. Ranks may have different
    numbers of chunks, but not with FSDP2, which gathers its parameters in every forward.

    Args:
        encoders: One per input; the same may occur more than once, for several views. Returns
            embeddings `[n, ...]`, or several of them.
        inputs: What each encodes: a tensor `[n, ...]`, a tuple or list of such (positional
            arguments), or a mapping (keyword arguments). n may differ between inputs. A value
            that is no tensor is passed on to every chunk.
        loss: Takes the embeddings `[n, ...]` of all encoders in order, returns a scalar.
        chunk_size: Rows encoded at a time, for all encoders or one number each. The last chunk may
            be shorter.
        backward: What runs the backward of the loss, such as
            ``lambda loss: scaler.scale(loss).backward()``.

    Returns:
        The loss, a scalar without gradient.

    Raises:
        ValueError: Different numbers of encoders, inputs or chunk sizes, a chunk size below 1, an
            input without rows or with tensors of different lengths.
        TypeError: An input that is none of these.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup", section 3.2.
    """
    sizes = _sizes(encoders, inputs, chunk_size)
    chunks = [
        _split(f"inputs[{i}]", x, size)
        for i, (x, size) in enumerate(zip(inputs, sizes, strict=True))
    ]
    modules = list({id(e): e for e in encoders if isinstance(e, nn.Module)}.values())
    with torch.no_grad(), ExitStack() as stack:
        for module in modules:
            stack.enter_context(_no_sync(module))
        buffers = [(b, b.clone()) for module in modules for b in module.buffers()]
        firsts = [[_Encoded(e, c) for c in cs] for e, cs in zip(encoders, chunks, strict=True)]
        for buffer, before in buffers:
            buffer.copy_(before)
    whole = [_concatenated(parts) for parts in firsts]
    value = loss(*(z for zs in whole for z in zs))
    backward(value)
    trained = [i for i, e in enumerate(encoders) if _trains(e)]
    again = [(first, zs) for i in trained for first, zs in _cut(firsts[i], whole[i])]
    devices = sorted({device for first, _ in again for device in first.devices})
    with torch.random.fork_rng(devices=devices):
        for i, (first, grads) in enumerate(again):
            last = all(first.encoder is not later.encoder for later, _ in again[i + 1 :])
            with nullcontext() if last else _no_sync(first.encoder):
                first.backward(grads)
    return value.detach()


class _Encoded:
    """A chunk encoded without gradient, and what it takes to encode it again."""

    def __init__(self, encoder: Encoder, chunk: Inputs) -> None:
        self.encoder, self.chunk = encoder, chunk
        self.random = torch.get_rng_state()
        self.devices, self.states = get_device_states(chunk)
        self.embeddings = _encode(encoder, chunk)

    def backward(self, grads: Sequence[Tensor | None]) -> None:
        torch.set_rng_state(self.random)
        set_device_states(self.devices, self.states)
        pairs = zip(_encode(self.encoder, self.chunk), grads, strict=True)
        pairs = [(z, grad) for z, grad in pairs if z.requires_grad and grad is not None]
        torch.autograd.backward(*zip(*pairs, strict=True))


def _encode(encoder: Encoder, chunk: Inputs) -> tuple[Tensor, ...]:
    if isinstance(chunk, Mapping):
        out = encoder(**chunk)
    else:
        out = encoder(*chunk) if isinstance(chunk, (tuple, list)) else encoder(chunk)
    return (out,) if isinstance(out, Tensor) else tuple(out)


def _concatenated(parts: list[_Encoded]) -> list[Tensor]:
    """The embeddings of the whole batch as leaves; those of a frozen encoder are constants."""
    trains = _trains(parts[0].encoder)
    columns = zip(*(part.embeddings for part in parts), strict=True)
    return [torch.cat(column).requires_grad_(trains) for column in columns]


def _cut(parts: list[_Encoded], whole: list[Tensor]) -> list[tuple[_Encoded, list[Tensor | None]]]:
    """Every chunk with the gradients of its embeddings, None where the loss did not use them."""
    pieces = []
    for i, z in enumerate(whole):
        rows = [part.embeddings[i].shape[0] for part in parts]
        pieces.append([None] * len(parts) if z.grad is None else z.grad.split(rows))
    return list(zip(parts, zip(*pieces, strict=True), strict=True))


def _trains(encoder: Encoder) -> bool:
    if not isinstance(encoder, nn.Module):
        return True
    return any(p.requires_grad for p in encoder.parameters())


def _sharded(encoder: Encoder) -> bool:
    # Importing FSDP takes longer than the rest of fastcl; who has a sharded module has done it.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(encoder, fsdp.FSDPModule)


@contextmanager
def _no_sync(encoder: Encoder) -> Iterator[None]:
    """Gradients stay on their rank."""
    if isinstance(encoder, DistributedDataParallel):
        with encoder.no_sync():
            yield
    elif _sharded(encoder):
        encoder.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            encoder.set_requires_gradient_sync(True)
    else:
        yield


def _sizes(encoders, inputs, chunk_size) -> list[int]:
    if len(inputs) != len(encoders) or len(encoders) == 0:
        raise ValueError(
            f"inputs must be one per encoder, {len(encoders)} and at least 1, got {len(inputs)}"
        )
    sizes = [chunk_size] * len(encoders) if isinstance(chunk_size, int) else list(chunk_size)
    if len(sizes) != len(encoders):
        raise ValueError(f"chunk_size must be one per encoder, {len(encoders)}, got {len(sizes)}")
    for size in sizes:
        _check.count("chunk_size", size)
    return sizes


def _split(name: str, x: Inputs, size: int) -> list[Inputs]:
    """Chunks of at most size rows, each of the kind of x."""
    if isinstance(x, Tensor):
        return [part[0] for part in _split(name, (x,), size)]
    if isinstance(x, Mapping):
        parts = _split(name, tuple(x.values()), size)
        return [dict(zip(x, part, strict=True)) for part in parts]
    if not isinstance(x, (tuple, list)):
        raise TypeError(f"{name} must be a tensor, tuple, list or mapping, got {type(x).__name__}")
    lengths = {len(y) for y in x if isinstance(y, Tensor)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{name} must have tensors of one length above 0, got {sorted(lengths)}")
    starts = range(0, lengths.pop(), size)
    return [tuple(y[i : i + size] if isinstance(y, Tensor) else y for y in x) for i in starts]
