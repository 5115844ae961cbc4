"""Where a network looks: activations of its stages, and attention of vision transformers."""

import math

import torch
from torch import Tensor, nn

from .features import evaluating

STAGES = 4


@torch.no_grad()
def feature_maps(
    backbone: nn.Module,
    images: Tensor,  # [b, channels, h, w], normalised
    stages: int = STAGES,
) -> dict[str, Tensor]:
    """Strength of the last activations at each resolution of a convolutional network.

    Equal to ``output.square().mean(1).sqrt()`` of the last module that ends at each resolution.

    Args:
        backbone: Any module; looked at in evaluation mode.
        images: `[b, channels, h, w]` as the backbone takes them.
        stages: At most this many, the deepest.

    Returns:
        From "32 x 32"-like names, finest first, to maps `[b, height, width]`; empty where no
        module returns `[b, channels, height, width]` with more than one position.
    """
    found: dict[tuple[int, int], Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple, output) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] > 1:
            size = (output.shape[2], output.shape[3])
            found.pop(size, None)
            found[size] = output.float().square().mean(1).sqrt()

    _look(backbone, images, [(m, keep) for m in backbone.modules() if not list(m.children())])
    sizes = sorted(found, reverse=True)[-stages:]
    return {f"{h} x {w}": found[h, w] for h, w in sizes}


def attention_blocks(model: nn.Module) -> list[nn.Module]:
    """Attention modules in the layout of timm: one linear layer `qkv`, and `num_heads`."""
    return [
        module for module in model.modules()
        if isinstance(getattr(module, "qkv", None), nn.Linear) and hasattr(module, "num_heads")
    ]  # fmt: skip


@torch.no_grad()
def attention_maps(
    model: nn.Module,
    images: Tensor,  # [b, channels, h, w], normalised
    layer: int = -1,
) -> Tensor:
    """Attention over the patches in one block of a vision transformer.

    Taken from the output of `qkv`, so that it also works where attention is fused and never
    formed: ``softmax(q @ k.mT / head_width**0.5)``, the row of the class token, or the mean over
    all patches where there is none.

    Args:
        model: With blocks as `attention_blocks` finds them; looked at in evaluation mode.
        images: `[b, channels, h, w]` as the model takes them, h equal to w.
        layer: Index of the block; the last by default.

    Returns:
        `[b, heads, side, side]`; each map sums to one less what goes to tokens that are no patch.

    Raises:
        ValueError: The model has no such block, or its patches form no square.
    """
    blocks = attention_blocks(model)
    if not -len(blocks) <= layer < len(blocks):
        raise ValueError(
            f"layer must be one of the {len(blocks)} attention blocks with a linear qkv, "
            f"got {layer}"
        )
    block, seen = blocks[layer], []
    _look(model, images, [(block.qkv, lambda _module, _inputs, output: seen.append(output))])
    (qkv,) = seen
    b, tokens, width = qkv.shape
    heads = block.num_heads
    q, k, _ = qkv.view(b, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    q, k = (getattr(block, name, nn.Identity())(x) for name, x in (("q_norm", q), ("k_norm", k)))
    attention = (q.float() @ k.float().mT / q.shape[-1] ** 0.5).softmax(-1)
    side = math.isqrt(tokens)
    prefix = getattr(model, "num_prefix_tokens", tokens - side * side)
    side = math.isqrt(tokens - prefix)
    if side * side != tokens - prefix:
        raise ValueError(
            f"the patches must form a square, got {tokens} tokens of which {prefix} are no patch"
        )
    row = attention[:, :, 0] if prefix else attention.mean(2)
    return row[..., prefix:].unflatten(-1, (side, side))


def _look(model: nn.Module, images: Tensor, hooks: list) -> None:
    """One forward in evaluation mode with hooks that are gone afterwards."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        with evaluating(model):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
