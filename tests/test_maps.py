"""Feature maps of convnets, and attention of a tiny vision transformer in timm's layout."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcl.evaluate import attention_maps, feature_maps
from fastcl.pretrain.backbone import SmallConvNet
from fastcl.pretrain.resnet import resnet18


class Attention(nn.Module):
    """As in timm: one layer for q, k and v, and a fused product that never forms the weights."""

    def __init__(self, width: int, heads: int, norm: bool = False) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if norm:
            self.q_norm, self.k_norm = (nn.LayerNorm(width // heads) for _ in "qk")

    def parts(self, x):
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.num_heads, d // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return (self.q_norm(q), self.k_norm(k), v) if hasattr(self, "q_norm") else (q, k, v)

    def forward(self, x):
        y = F.scaled_dot_product_attention(*self.parts(x))
        return self.proj(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, norm: bool) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), Attention(width, heads, norm)

    def forward(self, x):
        return x + self.attn(self.norm(x))


class TinyViT(nn.Module):
    """8 x 8 images in patches of 2 x 2, with or without class and register tokens."""

    def __init__(self, prefix: int = 1, norm: bool = False) -> None:
        super().__init__()
        self.num_prefix_tokens = prefix
        self.patch = nn.Conv2d(3, 24, 2, stride=2)
        self.first = nn.Parameter(torch.randn(1, prefix, 24))
        self.position = nn.Parameter(torch.randn(1, prefix + 16, 24))
        self.blocks = nn.Sequential(*(Block(24, 3, norm) for _ in "12"))

    def tokens(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.position

    def forward(self, images):
        return self.blocks(self.tokens(images)).mean(1)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("layer", [0, -1])
def test_attention_equals_the_plain_weights(prefix, norm, layer):
    model, images = TinyViT(prefix, norm).double(), torch.randn(4, 3, 8, 8).double()
    maps = attention_maps(model, images, layer)
    with torch.no_grad():
        x = model.tokens(images)
        if layer == -1:
            x = model.blocks[0](x)
        block = model.blocks[layer]
        q, k, _ = block.attn.parts(block.norm(x))
        weights = torch.einsum("bhid,bhjd->bhij", q, k).div(8**0.5).softmax(-1)
    row = weights[:, :, 0] if prefix else weights.mean(2)
    expected = row[..., prefix:].reshape(4, 3, 4, 4)
    assert maps.shape == (4, 3, 4, 4)
    torch.testing.assert_close(maps.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_class_token_is_found_without_being_told():
    model, images = TinyViT(1), torch.randn(2, 3, 8, 8)
    told = attention_maps(model, images)
    del model.num_prefix_tokens
    assert torch.equal(attention_maps(model, images), told)


def test_attention_names_what_does_not_fit():
    images = torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match="layer must be one of the 2 attention blocks .* got 2"):
        attention_maps(TinyViT(), images, 2)
    with pytest.raises(ValueError, match="the 0 attention blocks"):
        attention_maps(SmallConvNet(3), images)
    model = TinyViT()
    model.num_prefix_tokens = 3
    with pytest.raises(ValueError, match="must form a square, got 17 tokens of which 3"):
        attention_maps(model, images)


def test_feature_maps_are_the_last_of_each_resolution():
    network, images = SmallConvNet(1), torch.randn(5, 1, 8, 8)
    found = feature_maps(network, images)
    network.eval()
    with torch.no_grad():
        # Convolution, norm and ReLU are three modules; the strides halve at the second and fourth.
        for count, name in ((3, "8 x 8"), (9, "4 x 4"), (12, "2 x 2")):
            expected = network.layers[:count](images).square().mean(1).sqrt()
            torch.testing.assert_close(found[name], expected)
    assert list(found) == ["8 x 8", "4 x 4", "2 x 2"]


def test_feature_maps_of_a_resnet_leave_it_as_it_was():
    network, images = resnet18(3, "cifar"), torch.randn(2, 3, 32, 32)
    before = {name: x.clone() for name, x in network.state_dict().items()}
    found = feature_maps(network, images)
    assert [tuple(x.shape) for x in found.values()] == [(2, s, s) for s in (32, 16, 8, 4)]
    assert network.training
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_feature_maps_of_a_network_without_any_are_empty():
    assert (
        feature_maps(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(2, 3, 2, 2)) == {}
    )
