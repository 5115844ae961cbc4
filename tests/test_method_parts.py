"""Parts of methods, what they save, and what they refuse."""

import copy

import pytest
import torch
from method_training import (
    SAMPLES,
    Words,
    network,
)
from torch import nn

from fastcl import methods
from fastcl.methods.batch_norm import SplitBatchNorm, shuffled, split_batch_norm
from fastcl.methods.consert import augment


def test_augmentations_of_sentences():
    x = torch.rand(50, 6, 8) + 1
    real = torch.arange(6) < torch.randint(1, 7, (50, 1))
    moved = augment(x, real, "shuffle", 0.0)
    assert torch.equal(moved[~real], x[~real]) and not torch.equal(moved, x)
    torch.testing.assert_close((moved * real[:, :, None]).sum(1), (x * real[:, :, None]).sum(1))
    tokens = augment(x, real, "token_cutoff", 0.3) == 0
    assert (tokens.all(2) == tokens.any(2)).all() and 0.2 < tokens.float().mean() < 0.4
    features = augment(x, real, "feature_cutoff", 0.3) == 0
    assert (features.all(1) == features.any(1)).all() and 0.2 < features.float().mean() < 0.4
    elements = augment(x, real, "dropout", 0.3)
    assert 0.2 < (elements == 0).float().mean() < 0.4
    kept = elements != 0
    torch.testing.assert_close(elements[kept], x[kept] / 0.7)
    assert torch.equal(augment(x, real, "none", 0.0), x)


@pytest.mark.parametrize("shape", [(12, 5), (12, 5, 3), (12, 5, 3, 2)])
def test_split_batch_norm_normalises_every_group_by_itself(shape):
    x = torch.randn(shape, dtype=torch.float64)
    whole = nn.BatchNorm1d(5).double()
    nn.init.normal_(whole.weight), nn.init.normal_(whole.bias)
    parts = [copy.deepcopy(whole) for _ in range(3)]
    split = split_batch_norm(copy.deepcopy(whole), 3)
    y = split(x)
    for i, part in enumerate(parts):
        rows = x.chunk(3)[i]
        expected = part(rows.flatten(2) if rows.dim() > 3 else rows)
        torch.testing.assert_close(y.chunk(3)[i], expected.view_as(rows))
    mean = torch.stack([part.running_mean for part in parts]).mean(0)
    torch.testing.assert_close(split.running_mean, mean)
    with pytest.raises(ValueError, match="x must have a multiple of 3 rows, got 11"):
        split(x[:11])
    split.eval()
    assert split(x[:1]).shape == (1, *shape[1:])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_split_batch_norm_keeps_the_layout(layout):
    """A convolution that follows would copy what has another one."""
    x = torch.randn(12, 5, 3, 2).contiguous(memory_format=layout).requires_grad_()
    y = split_batch_norm(nn.BatchNorm2d(5), 3)(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert y.is_contiguous(memory_format=layout) and gradient.is_contiguous(memory_format=layout)


def test_shuffling_keeps_the_order_of_rows():
    x = torch.randn(12, 6)
    assert torch.equal(shuffled(lambda v: 2 * v, x), 2 * x)
    net = split_batch_norm(network(), 3)
    assert not torch.allclose(shuffled(net, x), net(x))  # the company counts


def test_moco_in_groups():
    method = methods.MoCo(network(), width=8, dim=4, queue_size=10, groups=2)
    assert any(isinstance(m, SplitBatchNorm) for m in method.target.modules())
    method(torch.randn(6, 6), torch.randn(6, 6)).backward()
    method.update()
    assert int(method.queue.pointer) == 6


def test_state_of_schedules_and_normalizers_is_saved():
    def build(kind):
        if kind == "byol":
            return methods.BYOL(network(), width=8, hidden=8, dim=4, steps=9)
        return methods.InstDisc(network(), width=8, samples=SAMPLES, dim=4, noise=3)

    for kind in ("byol", "instdisc"):
        ours, other = build(kind), build(kind)
        second = torch.arange(4) if kind == "instdisc" else torch.randn(4, 6)
        ours(torch.randn(4, 6), second)
        ours.update()
        other.load_state_dict(ours.state_dict())
        if kind == "byol":
            assert other.steps.count == 1
        else:
            assert other.normalizer.value == ours.normalizer.value > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda n: methods.SimCLR(n, width=8, loss="mse"), "loss must be one of nt_xent"),
        (lambda n: methods.InvaSpread(n, width=8, negative_weight=0.0), "negative_weight must be"),
        (lambda n: methods.InstDisc(n, width=8, samples=0), "size must be 1 or more, got 0"),
        (lambda n: methods.InstDisc(n, width=8, samples=9, noise=0), "noise must be 1 or more"),
        (lambda n: methods.BYOL(n, width=8, momentum=1.5), "momentum must be from 0 to 1"),
        (lambda n: methods.BYOL(n, width=8, steps=0), "steps must be 1 or more"),
        (lambda n: methods.MoCoV3(n, width=8, architecture="mlp"), "architecture must be one of"),
        (lambda n: methods.NNCLR(n, width=8, temperature=0.0), "temperature must be finite"),
        (lambda n: methods.BarlowTwins(n, width=8, off_diagonal=-1.0), "off_diagonal must be 0"),
        (lambda n: methods.VICReg(n, width=8, variance=-1.0), "variance must be 0 or more, got"),
        (lambda n: methods.SwAV(n, width=8, prototypes=1), "prototypes must be 2 or more"),
        (lambda n: methods.DINO(n, width=8, prototypes=1), "prototypes must be 2 or more"),
        (lambda n: methods.DINO(n, width=8, momentum=-0.1), "momentum must be from 0 to 1"),
        (lambda n: methods.DINO(n, width=8, warmup=1.5), "warmup must be from 0 to 1, got 1.5"),
        (lambda n: methods.DINO(n, width=8, layers=0), "layers must be 1 or more"),
        (lambda n: methods.DINO(n, width=8, assignment="mean"), "assignment must be one of center"),
        (
            lambda n: methods.DINO(n, width=8, first_teacher_temperature=0.0),
            "first_teacher_temperature must be finite and above 0",
        ),
        (lambda n: methods.CMC([n], width=8, samples=9), "backbones must be 2 at least"),
        (lambda n: methods.CPC(n, width=8, steps=0), "steps must be 1 or more"),
        (lambda n: methods.MoCo(n, width=8, groups=0), "groups must be 1 or more"),
        (
            lambda n: methods.DeepInfoMax(n, width=8, local=nn.ReLU(), channels=8),
            "local must be a part of the backbone",
        ),
        (lambda n: methods.ConSERT(n, n, augmentations=("cut", "none")), "augmentations must be"),
        (lambda n: methods.ConSERT(n, n, rates=(1.0, 0.1)), "rates must be from 0 to below 1"),
        (lambda n: methods.SimCSE(n, width=8, temperature=-1.0), "temperature must be finite"),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(ValueError, match=message):
        build(network())


def test_bad_inputs():
    x = torch.randn(4, 6)
    with pytest.raises(ValueError, match="labels must be given for loss sup_con alone"):
        methods.SimCLR(network(), width=8)(x, x, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels must be given for loss sup_con alone"):
        methods.SimCLR(network(), width=8, loss="sup_con")(x, x)
    with pytest.raises(ValueError, match="crops must be 2 at least, got 1"):
        methods.SwAV(network(), width=8)(x)
    with pytest.raises(ValueError, match="crops must be 2 at least, got 1"):
        methods.DINO(network(), width=8, prototypes=5)(x)
    with pytest.raises(ValueError, match="views must be 2, one for each backbone, got 1"):
        methods.CMC([network(), network()], width=8, samples=9)([x], torch.arange(4))
    with pytest.raises(ValueError, match="index must be given where there are banks"):
        methods.CMC([network(), network()], width=8, samples=9)([x, x])
    with pytest.raises(ValueError, match="hard must be given together with positives"):
        methods.SimCSE(Words(), width=8)(torch.zeros(2, 3, dtype=torch.int64), None, x)
    with pytest.raises(ValueError, match="sequence must have 13 encodings at least, got 4"):
        methods.CPC(nn.Identity(), width=6)(torch.randn(2, 6, 4))
    with pytest.raises(ValueError, match="images must have 6 rows of patches at least, got 1"):
        methods.ImageCPC(nn.Flatten(), width=12, patch=2)(torch.randn(2, 3, 2, 2))
