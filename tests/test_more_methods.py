"""The further methods against plain PyTorch: loss, gradients and state after some steps."""

import copy
import math

import plain_methods
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastcl import methods
from fastcl.methods.batch_norm import SplitBatchNorm, shuffled, split_batch_norm
from fastcl.methods.consert import augment

STEPS = st.integers(1, 4)
ROWS = st.integers(2, 9)
SEEDS = st.integers(0, 2**31 - 1)
SAMPLES = 20
FEW = settings(max_examples=8)


def network(width=8, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU())


def train(loss, named, batches, after):
    """Losses and last gradients of plain gradient descent; every step has a seed of its own."""
    losses, grads = [], {}
    for step, batch in enumerate(batches):
        torch.manual_seed(step)
        value = loss(*batch)
        parameters = dict(named())
        grads = dict(zip(parameters, torch.autograd.grad(
            value, list(parameters.values()), allow_unused=True), strict=True))  # fmt: skip
        with torch.no_grad():
            for name, p in parameters.items():
                p.sub_(0.1 * grads[name])
        after()
        losses.append(value.detach())
    return torch.stack(losses), grads


def check(ours, reference, batches, **options):
    """Both, from the same weights, through the same batches."""
    ours = ours.double()
    twin = reference(copy.deepcopy(ours), **options)

    def trained(module):
        return [(n, p) for n, p in module.named_parameters() if p.requires_grad]

    result = train(ours, lambda: trained(ours), batches, ours.update)
    expected = train(twin.loss, lambda: trained(twin.nets), batches, twin.after)
    torch.testing.assert_close(result, expected, rtol=1e-7, atol=1e-8)
    for (name, p), (_, q) in zip(trained(ours), trained(twin.nets), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-8, msg=name)
    return twin


def views(steps, rows, seed, count=2):
    torch.manual_seed(seed)
    return [torch.randn(count, rows, 6, dtype=torch.float64).unbind() for _ in range(steps)]


def numbered(steps, rows, seed, count=1):
    """Views and the numbers of their images, some of them twice."""
    found = views(steps, rows, seed, count)
    return [(v[0] if count == 1 else v, torch.randint(SAMPLES, (rows,))) for v in found]


@FEW
@given(STEPS, ROWS, SEEDS, st.sampled_from(["flat_nce", "dcl", "dclw", "sup_con"]))
def test_losses_of_simclr(steps, rows, seed, loss):
    ours = methods.SimCLR(network(), width=8, dim=4, temperature=0.3, loss=loss)
    batches = views(steps, rows, seed)
    if loss == "sup_con":
        batches = [(*v, torch.randint(3, (rows,))) for v in batches]
    check(ours, plain_methods.SimCLRLoss, batches, temperature=0.3, name=loss)


@FEW
@given(STEPS, ROWS, SEEDS, st.floats(1, 3))
def test_inva_spread(steps, rows, seed, weight):
    ours = methods.InvaSpread(network(), width=8, dim=4, temperature=0.5, negative_weight=weight)
    check(ours, plain_methods.InvaSpread, views(steps, rows, seed), temperature=0.5, weight=weight)


@FEW
@given(STEPS, ROWS, SEEDS, st.sampled_from([None, 1, 5]), st.floats(0, 1))
def test_inst_disc(steps, rows, seed, noise, momentum):
    ours = methods.InstDisc(
        network(), width=8, samples=SAMPLES, dim=4, noise=noise, momentum=momentum, temperature=0.5
    )
    batches = numbered(steps, rows, seed)
    options = {"noise": noise, "momentum": momentum, "temperature": 0.5}
    batches = [(v, torch.randperm(SAMPLES)[: len(i)]) for v, i in batches]
    twin = check(ours, plain_methods.InstDisc, batches, **options)
    torch.testing.assert_close(ours.bank.rows, twin.bank, rtol=1e-7, atol=1e-8)


@FEW
@given(STEPS, ROWS, SEEDS, st.integers(2, 3))
def test_cmc(steps, rows, seed, count):
    backbones = [network(8, i) for i in range(count)]
    ours = methods.CMC(backbones, width=8, samples=SAMPLES, dim=4, noise=5, temperature=0.5)
    batches = [
        (v, torch.randperm(SAMPLES)[:rows]) for v, _ in numbered(steps, rows, seed, count)
    ]  # fmt: skip
    twin = check(ours, plain_methods.CMC, batches, noise=5)
    for bank, expected in zip(ours.banks, twin.banks, strict=True):
        torch.testing.assert_close(bank.rows, expected, rtol=1e-7, atol=1e-8)


@FEW
@given(
    STEPS, ROWS, SEEDS, st.sampled_from([None, 3, 20]), st.floats(0, 1),
    st.sampled_from(["byol", "resnet", "vit"]),
)  # fmt: skip
def test_byol_and_moco_v3(steps, rows, seed, total, momentum, kind):
    common = {"width": 8, "hidden": 7, "dim": 4, "momentum": momentum, "steps": total}
    options = {"momentum": momentum, "steps": total}
    if kind == "byol":
        ours, reference = methods.BYOL(network(), **common), plain_methods.BYOL
    else:
        ours = methods.MoCoV3(network(), architecture=kind, temperature=0.4, **common)
        reference, options = plain_methods.MoCoV3, options | {"temperature": 0.4}
    twin = check(ours, reference, views(steps, rows, seed), **options)
    target = ours.target.module.state_dict()
    for name, value in twin.target.state_dict().items():
        torch.testing.assert_close(target[name], value, rtol=1e-7, atol=1e-8, msg=name)


@FEW
@given(STEPS, ROWS, SEEDS)
def test_simsiam(steps, rows, seed):
    ours = methods.SimSiam(network(), width=8, dim=6, prediction=3)
    check(ours, plain_methods.SimSiam, views(steps, rows, seed))


@FEW
@given(STEPS, ROWS, SEEDS, st.floats(0, 1))
def test_barlow_twins(steps, rows, seed, weight):
    ours = methods.BarlowTwins(network(), width=8, hidden=7, dim=5, off_diagonal=weight)
    check(ours, plain_methods.BarlowTwins, views(steps, rows, seed), weight=weight)


@FEW
@given(STEPS, ROWS, SEEDS, st.integers(1, 30))
def test_nnclr(steps, rows, seed, size):
    ours = methods.NNCLR(
        network(), width=8, hidden=7, dim=4, prediction=6, queue_size=size, temperature=0.5
    ).double()
    twin = check(ours, plain_methods.NNCLR, views(steps, rows, seed), temperature=0.5)
    oldest_first = ours.queue.rows.roll(-(steps * rows % size), 0)
    torch.testing.assert_close(oldest_first, torch.stack(twin.queue), rtol=1e-7, atol=1e-8)


class Mean(nn.Module):
    """A backbone for crops of any length."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU())

    def forward(self, x):  # [b, length] -> [b, 8]
        return self.body(torch.stack([x.mean(1), x.square().mean(1)], 1))


@FEW
@given(
    STEPS, ROWS, SEEDS, st.integers(0, 3), st.sampled_from([0, 4, 7]), st.integers(0, 2),
    st.integers(0, 3),
)  # fmt: skip
def test_swav(steps, rows, seed, crops, size, start, freeze):
    torch.manual_seed(seed)
    ours = methods.SwAV(
        Mean(), width=8, hidden=7, dim=4, prototypes=5, queue_size=size, queue_from=start,
        freeze=freeze, temperature=0.2, epsilon=0.1,
    )  # fmt: skip
    batches = [
        (*v, *torch.randn(crops, rows, 3, dtype=torch.float64).unbind())
        for v in views(steps, rows, seed)
    ]
    before = ours.prototypes.detach().double().clone()
    check(ours, plain_methods.SwAV, batches, size=size, start=start, freeze=freeze)
    assert torch.allclose(ours.prototypes.norm(dim=1), torch.ones(5, dtype=torch.float64))
    if freeze >= steps:
        torch.testing.assert_close(ours.prototypes.detach(), before, rtol=1e-6, atol=1e-7)


@FEW
@given(STEPS, ROWS, SEEDS)
def test_cpc_of_sequences(steps, rows, seed):
    torch.manual_seed(seed)
    ours = methods.CPC(nn.Conv1d(2, 5, 3, stride=2), width=5, context=4, steps=3)
    batches = [(torch.randn(rows, 2, 17, dtype=torch.float64),) for _ in range(steps)]
    check(ours, plain_methods.CPC, batches)


@FEW
@given(STEPS, ROWS, SEEDS)
def test_cpc_of_images(steps, rows, seed):
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh())
    ours = methods.ImageCPC(backbone, width=6, patch=4, steps=2, layers=2)
    batches = [(torch.randn(rows, 2, 10, 10, dtype=torch.float64),) for _ in range(steps)]
    check(ours, plain_methods.ImageCPC, batches)


def test_context_of_images_sees_no_row_below():
    method = methods.ImageCPC(nn.Flatten(), width=6, layers=3)
    x = torch.randn(1, 6, 5, 4)
    y = x.clone()
    y[:, :, 3:] += 1
    assert torch.equal(method.context(x)[:, :, :3], method.context(y)[:, :, :3])
    assert not torch.equal(method.context(x)[:, :, 3:], method.context(y)[:, :, 3:])


@FEW
@given(STEPS, ROWS, SEEDS, st.sampled_from(["jsd", "nce", "dv"]))
def test_deep_info_max(steps, rows, seed, name):
    torch.manual_seed(seed)
    local = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh())
    backbone = nn.Sequential(local, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    ours = methods.DeepInfoMax(backbone, width=5, local=local, channels=5, units=6, estimator=name)
    batches = [(torch.randn(rows, 2, 6, 6, dtype=torch.float64),) for _ in range(steps)]
    check(ours, plain_methods.DeepInfoMax, batches, name=name)


@FEW
@given(STEPS, ROWS, SEEDS, st.sampled_from([methods.CLIP, methods.SigLIP]))
def test_clip_and_siglip(steps, rows, seed, cls):
    ours = cls(network(8, seed), network(7, seed + 1), image_width=8, text_width=7, dim=4)
    check(ours, plain_methods.Texts, views(steps, rows, seed))


def test_clip_keeps_the_temperature():
    ours = methods.CLIP(network(), network(), image_width=8, text_width=8, dim=4)
    assert ours.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    ours.logit_scale.data.fill_(9.0)
    ours.update()
    assert ours.logit_scale.item() == pytest.approx(math.log(100))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(30, 8), nn.Dropout(0.3)

    def forward(self, x):  # [b, length] -> [b, 8]
        return self.dropout(self.embedding(x)).mean(1)


@FEW
@given(STEPS, ROWS, SEEDS, st.integers(1, 3))
def test_sim_cse(steps, rows, seed, kinds):
    torch.manual_seed(seed)
    ours = methods.SimCSE(Words(), width=8, temperature=0.1, hard_weight=0.5)
    batches = [torch.randint(30, (kinds, rows, 5)).unbind() for _ in range(steps)]
    check(ours, plain_methods.SimCSE, batches)


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(5, 8))

    def forward(self, x, real):  # [b, l, 8], [b, l] -> [b, 8]
        return (torch.tanh(x + self.position) * real[:, :, None]).sum(1)


@FEW
@given(STEPS, ROWS, SEEDS)
def test_consert(steps, rows, seed):
    torch.manual_seed(seed)
    ours = methods.ConSERT(nn.Embedding(30, 8), Body())
    batches = []
    for _ in range(steps):
        real = torch.arange(5) < torch.randint(1, 6, (rows, 1))
        batches.append((torch.randint(30, (rows, 5)), real))
    check(ours, plain_methods.ConSERT, batches)


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
        rows = x[i::3]
        rows = rows.flatten(2) if rows.dim() > 3 else rows
        torch.testing.assert_close(y[i::3], part(rows).view_as(x[i::3]))
    mean = torch.stack([part.running_mean for part in parts]).mean(0)
    torch.testing.assert_close(split.running_mean, mean)
    with pytest.raises(ValueError, match="x must have a multiple of 3 rows, got 11"):
        split(x[:11])
    split.eval()
    assert split(x[:1]).shape == (1, *shape[1:])


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
        (lambda n: methods.InvaSpread(n, width=8, negative_weight=0.5), "negative_weight must be"),
        (lambda n: methods.InstDisc(n, width=8, samples=0), "size must be 1 or more, got 0"),
        (lambda n: methods.InstDisc(n, width=8, samples=9, noise=0), "noise must be 1 or more"),
        (lambda n: methods.BYOL(n, width=8, momentum=1.5), "momentum must be from 0 to 1"),
        (lambda n: methods.BYOL(n, width=8, steps=0), "steps must be 1 or more"),
        (lambda n: methods.MoCoV3(n, width=8, architecture="mlp"), "architecture must be one of"),
        (lambda n: methods.NNCLR(n, width=8, temperature=0.0), "temperature must be finite"),
        (lambda n: methods.BarlowTwins(n, width=8, off_diagonal=-1.0), "off_diagonal must be 0"),
        (lambda n: methods.SwAV(n, width=8, prototypes=0), "prototypes must be 1 or more"),
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
    with pytest.raises(ValueError, match="views must be 2, one for each backbone, got 1"):
        methods.CMC([network(), network()], width=8, samples=9)([x], torch.arange(4))
    with pytest.raises(ValueError, match="hard must be given together with positives"):
        methods.SimCSE(Words(), width=8)(torch.zeros(2, 3, dtype=torch.int64), None, x)
    with pytest.raises(ValueError, match="sequence must have 13 encodings at least, got 4"):
        methods.CPC(nn.Identity(), width=6)(torch.randn(2, 6, 4))
    with pytest.raises(ValueError, match="images must have 6 rows of patches at least, got 1"):
        methods.ImageCPC(nn.Flatten(), width=12, patch=2)(torch.randn(2, 3, 2, 2))
