"""What open_clip's losses do between ranks, for those who write losses of their own with it."""

import torch
import torch.distributed as dist
from torch import Tensor

from ._open_clip_softmax import gather_features as _gathered


def gather_features(
    image_features: Tensor,  # [n, d]
    text_features: Tensor,  # [n, d]
    local_loss: bool = False,
    gather_with_grad: bool = False,
    rank: int = 0,
    world_size: int = 1,
    use_horovod: bool = False,
) -> tuple[Tensor, Tensor]:
    """The features of all ranks. Without gather_with_grad only the own rows receive gradients, and
    with local_loss not even these; world_size is that of torch.distributed.

    Raises:
        ValueError: use_horovod.
    """
    if use_horovod:
        raise ValueError("use_horovod must be False: fastcl gathers with torch.distributed")
    return _gathered(image_features, text_features, local_loss, gather_with_grad, rank)


def neighbour_exchange(
    from_rank: int,
    to_rank: int,
    tensor: Tensor,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Send a tensor to one rank and receive one like it from another."""
    return _exchange([(to_rank, tensor)], [(from_rank, tensor)], group)[0]


def neighbour_exchange_bidir(
    left_rank: int,
    right_rank: int,
    tensor_to_left: Tensor,
    tensor_to_right: Tensor,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Send a tensor to either side; those received from the right and from the left."""
    # In this order two ranks, each on both sides of the other, get what was meant for that side.
    sent = [(right_rank, tensor_to_right), (left_rank, tensor_to_left)]
    received = [(right_rank, tensor_to_left), (left_rank, tensor_to_right)]
    from_right, from_left = _exchange(sent, received, group)
    return from_right, from_left


def _exchange(sent, received, group) -> list[Tensor]:
    """Pairs of a rank and a tensor, of a rank and one as large as what comes from it."""
    buffers = [torch.empty_like(like) for _, like in received]
    steps = [dist.P2POp(dist.isend, x.contiguous(), rank, group=group) for rank, x in sent]
    steps += [
        dist.P2POp(dist.irecv, buffer, rank, group=group)
        for (rank, _), buffer in zip(received, buffers, strict=True)
    ]
    for request in dist.batch_isend_irecv(steps):
        request.wait()
    return buffers


class NeighbourExchange(torch.autograd.Function):
    """`neighbour_exchange`, whose gradient goes the way back."""

    @staticmethod
    def forward(ctx, from_rank, to_rank, group, tensor):
        ctx.way = from_rank, to_rank, group
        return neighbour_exchange(from_rank, to_rank, tensor, group)

    @staticmethod
    def backward(ctx, grad):
        from_rank, to_rank, group = ctx.way
        return None, None, None, NeighbourExchange.apply(to_rank, from_rank, group, grad)


class NeighbourExchangeBidir(torch.autograd.Function):
    """`neighbour_exchange_bidir`, whose gradients go the way back."""

    @staticmethod
    def forward(ctx, left_rank, right_rank, group, tensor_to_left, tensor_to_right):
        ctx.way = left_rank, right_rank, group
        return neighbour_exchange_bidir(
            left_rank, right_rank, tensor_to_left, tensor_to_right, group
        )

    @staticmethod
    def backward(ctx, grad_from_right, grad_from_left):
        left_rank, right_rank, group = ctx.way
        # What came from the right returns there: the other side is on the left now.
        grads = NeighbourExchangeBidir.apply(
            right_rank, left_rank, group, grad_from_right, grad_from_left
        )
        return None, None, None, *grads


def neighbour_exchange_with_grad(
    from_rank: int,
    to_rank: int,
    tensor: Tensor,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """`neighbour_exchange` with a gradient."""
    return NeighbourExchange.apply(from_rank, to_rank, group, tensor)


def neighbour_exchange_bidir_with_grad(
    left_rank: int,
    right_rank: int,
    tensor_to_left: Tensor,
    tensor_to_right: Tensor,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """`neighbour_exchange_bidir` with gradients."""
    return NeighbourExchangeBidir.apply(
        left_rank, right_rank, group, tensor_to_left, tensor_to_right
    )
