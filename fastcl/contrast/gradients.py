"""What the differentiable operators share: gradients that were ready in the forward."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Whether the backward that is running leaves the graph for another one. Where PyTorch has no such
# question any more, the answer is yes: then nothing is handed over, and memory is all it costs.
_graph_is_kept = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def refuse_second_derivative() -> None:
    """Called in a backward: with create_graph, what it returns would pass for a constant."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("fastcl losses have no second derivative (create_graph=True)")


def refuse_forward_mode(*inputs: Tensor | None) -> None:
    """An input with a tangent: the operators would lose it silently."""
    if forward_ad._current_level < 0 or torch.compiler.is_compiling():
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in inputs):
        raise RuntimeError(
            "fastcl losses have no forward-mode derivative (torch.autograd.forward_ad)"
        )


def needs_gradient(*inputs: Tensor | None) -> bool:
    """Whether autograd would record an operation on these."""
    refuse_forward_mode(*inputs)
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def handed_over(
    saved: Tensor,  # [...]
    grad: Tensor,  # broadcasts to it
    dtype: torch.dtype | None = None,
) -> Tensor:
    """grad times a tensor that was saved for this backward, in the place of it where nothing reads
    it again: a gradient as large as the rows then exists once. In a dtype, where one is given."""
    dtype = saved.dtype if dtype is None else dtype
    traced = torch.compiler.is_compiling() or type(grad) is not Tensor
    if dtype != saved.dtype and saved.is_cuda and not traced:  # in one launch
        return torch.mul(saved, grad, out=torch.empty_like(saved, dtype=dtype))
    if traced or _graph_is_kept():
        return (grad * saved).to(dtype)
    return (saved if is_one(grad) else saved.mul_(grad)).to(dtype)


def is_one(grad: Tensor) -> bool:
    """Whether what was saved is the gradient, in a backward that nothing reads again; a GPU is not
    asked."""
    if torch.compiler.is_compiling() or type(grad) is not Tensor or _graph_is_kept():
        return False
    return grad.is_cpu and grad.numel() == 1 and grad.item() == 1
