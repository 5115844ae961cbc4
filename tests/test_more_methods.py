"""The further methods against plain PyTorch: loss, gradients and state after some steps."""

import math

import plain_methods
import plain_predictions
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_training import FEW, ROWS, SAMPLES, SEEDS, STEPS, Words, check, network, numbered, views
from torch import nn

from fastcl import methods


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
@given(STEPS, ROWS, SEEDS, st.integers(2, 3))
def test_cmc_without_banks(steps, rows, seed, count):
    ours = methods.CMC([network(8, i) for i in range(count)], width=8, dim=4, temperature=0.5)
    check(ours, plain_methods.BatchCMC, numbered(steps, rows, seed, count))
    views, index = numbered(1, rows, seed, count)[0]
    ours = ours.float()
    views = [view.float() for view in views]
    assert torch.equal(ours(views), ours(views, index))
    ours.update()


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
@given(STEPS, ROWS, SEEDS, st.sampled_from([3, 30]), st.tuples(*[st.floats(0, 30)] * 3))
def test_vicreg(steps, rows, seed, dim, weights):
    """With fewer features than rows, and more."""
    weights = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    ours = methods.VICReg(network(), width=8, hidden=7, dim=dim, **weights)
    check(ours, plain_methods.VICReg, views(steps, rows, seed), weights=weights)


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
@given(
    STEPS, ROWS, SEEDS, st.integers(0, 3), st.sampled_from([None, 3, 20]), st.integers(0, 3),
    st.booleans(), st.sampled_from(["center", "sinkhorn"]),
)  # fmt: skip
def test_dino(steps, rows, seed, crops, total, freeze, norm, assignment):
    torch.manual_seed(seed)
    ours = methods.DINO(
        Mean(), width=8, hidden=7, dim=4, prototypes=5, batch_norm=norm, temperature=0.2,
        warmup=0.5, momentum=0.9, steps=total, freeze=freeze, assignment=assignment,
    )  # fmt: skip
    with torch.no_grad():  # the gradient of a row of length 0 has no scale
        for head in (ours.head, ours.target.module[1]):
            head[-1].bias.copy_(torch.linspace(-1, 2, 4))
    batches = [
        (*v, *torch.randn(crops, rows, 3, dtype=torch.float64).unbind())
        for v in views(steps, rows, seed)
    ]
    before = ours.prototypes.weight.detach().double().clone()
    twin = check(
        ours, plain_methods.DINO, batches, steps=total, freeze=freeze, momentum=0.9, warmup=0.5,
        iterations=3 if assignment == "sinkhorn" else 0,
    )  # fmt: skip
    if assignment == "center":
        torch.testing.assert_close(ours.loss.center, twin.center, rtol=1e-7, atol=1e-8)
    assert freeze < steps or torch.equal(ours.prototypes.weight.detach(), before)
    for p, q in zip(ours.target.module.parameters(), twin.teacher.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-8)


def test_the_teacher_of_dino_warms_up():
    ours = methods.DINO(Mean(), width=8, hidden=7, dim=4, prototypes=5, steps=20, warmup=0.25)
    seen = []
    for _ in range(8):
        seen.append(ours.teacher_temperature)
        ours.update()
    assert seen[:6] == pytest.approx([0.04, 0.046, 0.052, 0.058, 0.064, 0.07])
    assert seen[5:] == [0.07] * 3
    still = methods.DINO(Mean(), width=8, hidden=7, dim=4, prototypes=5)
    assert still.teacher_temperature == 0.07, "without the number of steps there is no schedule"


def test_the_center_of_dino_stays_in_evaluation():
    ours = methods.DINO(Mean(), width=8, hidden=7, dim=4, prototypes=5).eval()
    ours(*torch.randn(2, 6, 4))
    assert not ours.loss.center.any()


@FEW
@given(STEPS, ROWS, SEEDS)
def test_cpc_of_sequences(steps, rows, seed):
    torch.manual_seed(seed)
    ours = methods.CPC(nn.Conv1d(2, 5, 3, stride=2), width=5, context=4, steps=3)
    batches = [(torch.randn(rows, 2, 17, dtype=torch.float64),) for _ in range(steps)]
    check(ours, plain_predictions.CPC, batches)


@FEW
@given(STEPS, ROWS, SEEDS)
def test_cpc_of_images(steps, rows, seed):
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh())
    ours = methods.ImageCPC(backbone, width=6, patch=4, steps=2, layers=2)
    batches = [(torch.randn(rows, 2, 10, 10, dtype=torch.float64),) for _ in range(steps)]
    check(ours, plain_predictions.ImageCPC, batches)


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
    check(ours, plain_predictions.DeepInfoMax, batches, name=name)


@FEW
@given(STEPS, ROWS, SEEDS, st.sampled_from([methods.CLIP, methods.SigLIP]))
def test_clip_and_siglip(steps, rows, seed, cls):
    ours = cls(network(8, seed), network(7, seed + 1), image_width=8, text_width=7, dim=4)
    check(ours, plain_predictions.Texts, views(steps, rows, seed))


def test_clip_keeps_the_temperature():
    ours = methods.CLIP(network(), network(), image_width=8, text_width=8, dim=4)
    assert ours.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    ours.logit_scale.data.fill_(9.0)
    ours.update()
    assert ours.logit_scale.item() == pytest.approx(math.log(100))


@FEW
@given(STEPS, ROWS, SEEDS, st.integers(1, 3))
def test_sim_cse(steps, rows, seed, kinds):
    torch.manual_seed(seed)
    ours = methods.SimCSE(Words(), width=8, temperature=0.1, hard_weight=0.5)
    batches = [torch.randint(30, (kinds, rows, 5)).unbind() for _ in range(steps)]
    check(ours, plain_predictions.SimCSE, batches)


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
    check(ours, plain_predictions.ConSERT, batches)
