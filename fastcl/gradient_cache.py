"""The gradient cache: batches whose encoder activations do not fit, with the exact gradient."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from . import _check
from ._encoder import check, data_parallel, modules, no_sync

Encoder = Callable[..., Tensor | Sequence | Mapping]
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
    of parameters inside `loss` too, and of inputs that require one. Runs under the caller's
    autocast. The buffers are those of every module that the encoder names: as itself, its method,
    a partial of it or inside a function.

    A DistributedDataParallel or FSDP2 encoder communicates gradients in its last backward only;
    DistributedDataParallel not at all inside the caller's `no_sync`. Ranks may have different
    numbers of chunks, but not with FSDP2, which gathers its parameters in every forward.

    Args:
        encoders: One per input; the same may occur more than once, for several views. Returns
            embeddings `[n, ...]`, several of them, or a mapping that has some. A tensor without
            dimensions, such as a learned scale, must be the same for every chunk.
        inputs: What each encodes: a tensor `[n, ...]`, a tuple or list of such (positional
            arguments), or a mapping (keyword arguments). n may differ between inputs. A value
            that is no tensor is passed on to every chunk.
        loss: Takes the embeddings `[n, ...]` of all encoders in order, each of several as an
            argument and a mapping as one, and returns a scalar.
        chunk_size: Rows encoded at a time, for all encoders or one number each. The last chunk may
            be shorter.
        backward: What runs the backward of the loss, such as
            ``lambda loss: scaler.scale(loss).backward()``.

    Returns:
        The loss, a scalar without gradient.

    Raises:
        ValueError: Different numbers of encoders, inputs or chunk sizes, a chunk size below 1, an
            input without rows or with tensors of different lengths, an output without
            dimensions that differs between chunks, or a static graph of DistributedDataParallel.
        TypeError: An input that is none of these.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup", section 3.2.
    """
    sizes = _sizes(encoders, inputs, chunk_size)
    for encoder in encoders:
        check(encoder)
    cut: list[tuple[Tensor, Tensor]] = []
    chunks = [
        _split(f"inputs[{i}]", x, size, cut)
        for i, (x, size) in enumerate(zip(inputs, sizes, strict=True))
    ]
    with torch.no_grad(), ExitStack() as stack:
        for module in {m for e in encoders for m in data_parallel(e)}:
            stack.enter_context(no_sync(module))
        buffers = [(b, b.clone()) for e in encoders for m in modules(e) for b in m.buffers()]
        firsts = [[_Encoded(e, c) for c in cs] for e, cs in zip(encoders, chunks, strict=True)]
        for buffer, before in buffers:
            buffer.copy_(before)
    whole = [_concatenated(parts) for parts in firsts]
    value = loss(*(z for parts, zs in zip(firsts, whole, strict=True) for z in parts[0].like(zs)))
    backward(value)
    again = [piece for parts, zs in zip(firsts, whole, strict=True) for piece in _pieces(parts, zs)]
    devices = sorted({device for first, _ in again for device in first.devices})
    with torch.random.fork_rng(devices=devices):
        for (first, grads), waiting in zip(again, _unfinished(again), strict=True):
            with ExitStack() as stack:
                for module in waiting:
                    stack.enter_context(no_sync(module))
                first.backward(grads)
    reached = [(x, leaf.grad) for x, leaf in cut if leaf.grad is not None]
    if reached:
        torch.autograd.backward(*zip(*reached, strict=True))
    return value.detach()


class _Encoded:
    """A chunk encoded without gradient, and what it takes to encode it again."""

    def __init__(self, encoder: Encoder, chunk: Inputs) -> None:
        self.encoder, self.chunk = encoder, chunk
        self.random = torch.get_rng_state()
        self.devices, self.states = get_device_states(chunk)
        self._outputs = _encode(encoder, chunk)
        self.embeddings = _tensors(self._outputs)

    def like(self, tensors: list[Tensor]) -> tuple:
        """Its outputs with other tensors in the place of the embeddings."""
        values = iter(tensors)
        return _mapped(lambda _: next(values), self._outputs)

    def backward(self, grads: Sequence[Tensor | None]) -> None:
        torch.set_rng_state(self.random)
        set_device_states(self.devices, self.states)
        pairs = zip(_tensors(_encode(self.encoder, self.chunk)), grads, strict=True)
        pairs = [(z, grad) for z, grad in pairs if z.requires_grad and grad is not None]
        if pairs:  # none where the encoder detaches
            torch.autograd.backward(*zip(*pairs, strict=True))


def _encode(encoder: Encoder, chunk: Inputs) -> tuple:
    if isinstance(chunk, Mapping):
        out = encoder(**chunk)
    else:
        out = encoder(*chunk) if isinstance(chunk, (tuple, list)) else encoder(chunk)
    return (out,) if isinstance(out, (Tensor, Mapping)) else tuple(out)


def _mapped(f: Callable, x):
    """f of every tensor in x, in tuples, lists and mappings of the same kinds."""
    if isinstance(x, Tensor):
        return f(x)
    if isinstance(x, Mapping):
        return type(x)({key: _mapped(f, y) for key, y in x.items()})
    if isinstance(x, (tuple, list)):
        parts = [_mapped(f, y) for y in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


def _tensors(x) -> list[Tensor]:
    found = []
    _mapped(found.append, x)
    return found


def _concatenated(parts: list[_Encoded]) -> list[Tensor]:
    """The embeddings of the whole batch as leaves; those that nothing trains are constants."""
    encoder, inputs = parts[0].encoder, _tensors(parts[0].chunk)
    frozen = isinstance(encoder, nn.Module) and not any(
        x.requires_grad for x in (*encoder.parameters(), *inputs)
    )
    whole = []
    for column in zip(*(part.embeddings for part in parts), strict=True):
        if column[0].dim() > 0:
            z = torch.cat(column)
        elif all(x.equal(column[0]) for x in column):
            z = column[0].clone()
        else:
            raise ValueError(
                "outputs without dimensions must be the same for every chunk, "
                f"got {column[0].item()} and others"
            )
        whole.append(z.requires_grad_(not frozen and (z.is_floating_point() or z.is_complex())))
    return whole


def _pieces(
    parts: list[_Encoded], whole: list[Tensor]
) -> list[tuple[_Encoded, list[Tensor | None]]]:
    """The chunks whose embeddings have gradients, None for those that the loss did not use."""
    columns = []
    for i, z in enumerate(whole):
        none = [None] * len(parts)
        if z.grad is None:
            columns.append(none)
        elif z.dim() == 0:
            columns.append([z.grad, *none[1:]])
        else:
            columns.append(z.grad.split([part.embeddings[i].shape[0] for part in parts]))
    pieces = zip(parts, zip(*columns, strict=True), strict=True)
    return [(part, grads) for part, grads in pieces if any(g is not None for g in grads)]


def _unfinished(again: list[tuple[_Encoded, list]]) -> list[set[nn.Module]]:
    """For every chunk, the data-parallel modules that have another backward after it."""
    behind = {id(first.encoder): set(data_parallel(first.encoder)) for first, _ in again}
    later, found = set(), []
    for first, _ in reversed(again):
        found.append(behind[id(first.encoder)] & later)
        later |= behind[id(first.encoder)]
    return found[::-1]


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


def _split(name: str, x: Inputs, size: int, cut: list[tuple[Tensor, Tensor]]) -> list[Inputs]:
    """Chunks of at most size rows, each of the kind of x.

    A tensor that requires a gradient gets it once, from a leaf in its place: cut has both.
    """
    if isinstance(x, Tensor):
        return [part[0] for part in _split(name, (x,), size, cut)]
    if isinstance(x, Mapping):
        parts = _split(name, tuple(x.values()), size, cut)
        return [dict(zip(x, part, strict=True)) for part in parts]
    if not isinstance(x, (tuple, list)):
        raise TypeError(f"{name} must be a tensor, tuple, list or mapping, got {type(x).__name__}")
    lengths = {len(y) for y in x if isinstance(y, Tensor)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"{name} must have tensors of one length above 0, got {sorted(lengths)}")
    x = [_leaf(y, cut) if isinstance(y, Tensor) and y.requires_grad else y for y in x]
    starts = range(0, lengths.pop(), size)
    return [tuple(y[i : i + size] if isinstance(y, Tensor) else y for y in x) for i in starts]


def _leaf(x: Tensor, cut: list[tuple[Tensor, Tensor]]) -> Tensor:
    leaf = x.detach().requires_grad_()
    cut.append((x, leaf))
    return leaf
