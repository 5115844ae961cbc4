"""The ring of older keys of MoCo: a function over two tensors, and the module that holds them."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from . import _check, _ranks
from ._library import ops
from .reference import queue_push_ as _strided_push_


def queue_push_(
    queue: Tensor,  # [K, d]
    pointer: Tensor,  # [] int64
    rows: Tensor,  # [b, d]
    *,
    normalize: bool = False,
) -> None:
    """Overwrite the oldest rows of a ring with new ones, in place, without waiting for the device.

    Equal to ``queue[(pointer + arange(b)) % K] = rows; pointer += b``, with
    ``F.normalize(rows.float(), dim=1)`` in place of rows where asked, in the same launch.

    Args:
        queue: `[K, d]`; row pointer % K is the oldest and min(pointer, K) rows are filled.
        pointer: `[]` int64, the number of rows pushed so far, in [0, 2^48); advances by b. It
            lives on the device, so a CUDA graph that contains the push can be replayed.
        rows: `[b, d]`, any b: the last K rows stay where b > K. Another dtype is converted and
            gradients are not followed.
        normalize: Divide every row by its length (or by 1e-12), rounding once, to the dtype of
            the queue.

    Raises:
        ValueError: Shapes or devices do not fit, an empty queue or batch, or a queue that
            requires a gradient.
        TypeError: queue or rows are not floating point, or pointer is not int64.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning",
    section 3.1.
    """
    _check_push(queue, pointer, rows)
    _push_(queue, pointer, rows, normalize)


def _check_push(queue: Tensor, pointer: Tensor, rows: Tensor) -> None:
    _check.rows("queue", queue)
    if queue.requires_grad:
        raise ValueError("queue must not require a gradient")
    _check.state("pointer", pointer, queue.device)
    _check.rows("rows", rows)
    if rows.shape[1] != queue.shape[1]:
        raise ValueError(
            f"rows must have the width of queue, {queue.shape[1]}, got {rows.shape[1]}"
        )
    if rows.device != queue.device:
        raise ValueError(f"rows must be on the device of queue, {queue.device}, got {rows.device}")


@torch.no_grad()
def _push_(queue: Tensor, pointer: Tensor, rows: Tensor, normalize: bool) -> None:
    # The kernels want rows end to end; a strided queue is rare enough for plain PyTorch.
    push = ops.queue_push_ if queue.is_contiguous() else _strided_push_
    push(queue, pointer, rows.detach().contiguous(), normalize)
    # A backward that still needs the overwritten rows must fail instead of using the new ones.
    torch.autograd.graph.increment_version(queue)


def random_rows(
    size: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    uniform: bool = False,
) -> Tensor:
    """Rows [size, width] to begin with: unit ones, or uniform numbers of variance 1 / width."""
    # Its own generator: ranks agree without talking, and the caller's random state is kept.
    generator = torch.Generator().manual_seed(0)
    device = torch.get_default_device() if device is None else device
    if uniform:
        x = torch.rand(size, width, generator=generator, device="cpu")
        x = (2 * x - 1) * (3 / width) ** 0.5
    else:
        x = F.normalize(torch.randn(size, width, generator=generator, device="cpu"), dim=1)
    return x.to(device=device, dtype=dtype)


class Queue(nn.Module):
    """A ring of the last `size` rows, read in place.

    Args:
        size: Rows held, K.
        width: Length of a row, d.
        dtype: Of the stored rows; pushed rows are converted. Later casts of the module
            (`.half()`, `.to(torch.bfloat16)`) convert them like any buffer.
        device: As for any module.
        fill: What is there before the first push: "random" unit rows, the same on every rank and
            in every process, as in MoCo; "empty": zeros, with `filled` for a mask.

    Attributes:
        rows: `[K, d]`, oldest first from row pointer % K on. A view: a push overwrites it.
        pointer: `[]` int64, rows pushed so far.

    Both are in the state_dict. A state_dict of another size is an error that says to `resize`.

    Raises:
        ValueError: size or width below 1, or an unknown fill.
        TypeError: A dtype that is not floating point.

    Source: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning".
    """

    rows: Tensor
    pointer: Tensor

    def __init__(
        self,
        size: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        fill: str = "random",
    ) -> None:
        super().__init__()
        _check.store(size, width, dtype, fill, ("random", "empty"))
        self.fill = fill
        self.register_buffer("rows", self._initial(size, width, dtype, device))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64, device=device))

    def _initial(
        self, size: int, width: int, dtype: torch.dtype, device: torch.device | str | None
    ) -> Tensor:
        if self.fill == "empty":
            return torch.zeros(size, width, dtype=dtype, device=device)
        return random_rows(size, width, dtype, device)

    def push(
        self,
        rows: Tensor,
        *,
        equal: bool = False,
        normalize: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Overwrite the oldest rows with new ones.

        Where torch.distributed runs several ranks, the rows of all ranks are pushed in rank
        order, so their queues stay identical; when gathering fails the queue is unchanged.

        Args:
            rows: `[b, d]`, any b; gradients are not followed.
            equal: Every rank pushes as many rows: saves exchanging the counts, for which the host
                waits. Wrong where they differ.
            normalize: Divide every row by its length on the way in, in the same launch.
            group: The ranks that take part; None: all.

        Raises:
            ValueError, TypeError: As for `queue_push_`.
        """
        _check_push(self.rows, self.pointer, rows)
        everyone = _ranks.gather(rows, equal=equal, group=group)
        _push_(self.rows, self.pointer, everyone, normalize)

    def forward(self) -> Tensor:
        """The rows `[K, d]` in place, in storage order."""
        return self.rows

    @property
    def filled(self) -> Tensor:
        """How many rows hold pushed ones, `[]` int64 on the device."""
        return self.pointer.clamp(max=self.rows.shape[0])

    def ordered(self) -> Tensor:
        """A copy of the pushed rows, oldest first, `[filled, d]`. Waits for the device."""
        size, pushed = self.rows.shape[0], int(self.pointer)
        return self.rows[:pushed] if pushed < size else self.rows.roll(-(pushed % size), 0)

    @torch.no_grad()
    def resize(self, size: int) -> None:
        """Hold another number of rows; the newest pushed ones stay. Waits for the device."""
        _check.count("size", size)
        kept = self.ordered()[-size:]
        rows = self._initial(size, self.rows.shape[1], self.rows.dtype, self.rows.device)
        rows[: kept.shape[0]] = kept
        self.rows = rows
        self.pointer.fill_(kept.shape[0])

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and saved.shape != self.rows.shape:
            error_msgs.append(
                f"{prefix}rows: the checkpoint holds a queue of shape {list(saved.shape)}, this "
                f"one has {list(self.rows.shape)}; call resize({saved.shape[0]}) before loading, "
                "and again with the wanted size after"
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        return f"{self.rows.shape[0]}, {self.rows.shape[1]}, dtype={self.rows.dtype}"
