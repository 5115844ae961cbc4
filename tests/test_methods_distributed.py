"""Methods over two gloo ranks of unequal batches against one process with the global batch."""

import copy
from unittest import mock

import pytest
import torch
from gloo import spawn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from fastcl import methods, pretext

COUNTS = [3, 5]
N, STEPS, SAMPLES = sum(COUNTS), 3, 20


def network(width=8):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh())


def pictures():
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def maps(channels):
    return nn.Sequential(nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.Tanh())


def deep_info_max():
    local = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Tanh())
    backbone = nn.Sequential(local, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return methods.DeepInfoMax(backbone, width=5, local=local, channels=5, units=6)


class Words(nn.Module):
    def forward(self, x, real):  # [b, l, 8], [b, l] -> [b, 8]
        return (torch.tanh(x) * real[:, :, None]).sum(1)


class CMC(methods.CMC):
    def forward(self, one, two, index):
        return super().forward((one, two), index)


def views(step, count=2):
    return torch.randn(count, N, 6, dtype=torch.float64).unbind()


def numbered(step):
    return views(step, 1)[0], torch.randperm(SAMPLES)[:N]


def tokens(step):
    return torch.randint(30, (N, 5)), torch.arange(5) < torch.randint(1, 6, (N, 1))


HEAD = {"width": 8, "hidden": 7, "dim": 4}
# Noise and augmentation that every rank draws for itself are left out.
METHODS = {
    "moco": (lambda: methods.MoCo(network(), **HEAD, queue_size=10), views),
    "byol": (lambda: methods.BYOL(network(), **HEAD, momentum=0.9), views),
    "moco_v3": (lambda: methods.MoCoV3(network(), **HEAD, momentum=0.9), views),
    "simsiam": (lambda: methods.SimSiam(network(), width=8, dim=6, prediction=3), views),
    "instdisc": (
        lambda: methods.InstDisc(network(), width=8, samples=SAMPLES, dim=4, noise=None),
        numbered,
    ),
    "cmc": (
        lambda: CMC([network(), network()], width=8, samples=SAMPLES, dim=4, noise=None),
        lambda step: (*views(step), torch.randperm(SAMPLES)[:N]),
    ),
    "cmc_batch": (
        lambda: CMC([network(), network()], width=8, dim=4),
        lambda step: (*views(step), torch.arange(N)),
    ),
    "swav": (
        lambda: methods.SwAV(network(), **HEAD, prototypes=5, queue_size=4, freeze=1),
        lambda step: views(step, 3),
    ),
    "dino": (
        lambda: methods.DINO(network(), **HEAD, prototypes=5, freeze=1, steps=4),
        lambda step: views(step, 3),
    ),
    "dino_sinkhorn": (
        lambda: methods.DINO(network(), **HEAD, prototypes=5, freeze=1, assignment="sinkhorn"),
        lambda step: views(step, 3),
    ),
    "simclr": (lambda: methods.SimCLR(network(), width=8, dim=4), views),
    "supcon": (
        lambda: methods.SimCLR(network(), width=8, dim=4, loss="sup_con"),
        lambda step: (*views(step), torch.randint(3, (N,))),
    ),
    "inva_spread": (lambda: methods.InvaSpread(network(), width=8, dim=4), views),
    "nnclr": (lambda: methods.NNCLR(network(), **HEAD, prediction=6, queue_size=9), views),
    "barlow_twins": (lambda: methods.BarlowTwins(network(), **HEAD), views),
    "vicreg": (lambda: methods.VICReg(network(), **HEAD), views),
    "cpc": (
        lambda: methods.CPC(nn.Conv1d(2, 5, 3, stride=2), width=5, context=4, steps=3),
        lambda step: (torch.randn(N, 2, 17, dtype=torch.float64),),
    ),
    "image_cpc": (
        lambda: methods.ImageCPC(
            nn.Sequential(nn.Flatten(), nn.Linear(32, 6)), width=6, patch=4, steps=2, layers=2
        ),
        lambda step: (torch.randn(N, 2, 10, 10, dtype=torch.float64),),
    ),
    "dim": (deep_info_max, lambda step: (torch.randn(N, 2, 6, 6, dtype=torch.float64),)),
    "clip": (
        lambda: methods.CLIP(network(), network(), image_width=8, text_width=8, dim=4),
        views,
    ),
    "siglip": (
        lambda: methods.SigLIP(network(), network(), image_width=8, text_width=8, dim=4),
        views,
    ),
    "sim_cse": (lambda: methods.SimCSE(network(), width=8), lambda step: views(step, 1)),
    "consert": (
        lambda: methods.ConSERT(nn.Embedding(30, 8), Words(), augmentations=("none", "none")),
        tokens,
    ),
}
TASKS = {
    "rotation": lambda: pretext.Rotation(pictures(), width=6),
    "jigsaw": lambda: pretext.Jigsaw(pictures(), width=6, hidden=9, permutations=10),
    "relative_patch": lambda: pretext.RelativePatch(pictures(), width=6, hidden=9),
    "colorization": lambda: pretext.Colorization(maps(1), width=6),
    "split_brain": lambda: pretext.SplitBrain(maps(1), maps(2), width=6),
    "inpainting": lambda: pretext.Inpainting(maps(3), width=6, size=16, hole="blocks"),
}


class Asked(nn.Module):
    """A pretext task that is handed its questions."""

    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, *drawn):
        return self.task.loss(*drawn)

    def update(self):
        self.task.update()


def without_batch_norm(module):
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            module.add_module(name, nn.Identity())
        else:
            without_batch_norm(child)
    return module


def shares(parts):
    """The rows of each rank: unequal, and as many to one image on both."""
    n = len(parts[0])
    counts = [n // N * count for count in COUNTS]
    counts[-1] = n - sum(counts[:-1])
    return [list(rows) for rows in zip(*(part.split(counts) for part in parts), strict=True)]


def train(module, update, batches):
    """Losses, last gradients and the state after some steps."""
    optimizer, losses = torch.optim.SGD(module.parameters(), lr=0.1), []
    for step, batch in enumerate(batches):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = module(*batch)
        loss.backward()
        optimizer.step()
        update()
        losses.append(loss.detach())
    return torch.stack(losses), [p.grad for p in module.parameters() if p.requires_grad]


def method(name):
    torch.manual_seed(0)
    build, batch = METHODS[name]
    module = without_batch_norm(build().double())
    return module, [batch(step) for step in range(STEPS)]


def task(name):
    torch.manual_seed(0)
    module = without_batch_norm(TASKS[name]().double())
    images = torch.rand(STEPS, N, 3, 16, 16, dtype=torch.float64)
    return Asked(module), [module.draw(x) for x in images]


EVERY = {**{name: method for name in METHODS}, **{name: task for name in TASKS}}


def _ranks(rank, folder):
    for name, build in EVERY.items():
        module, batches = build(name)
        own = [shares(parts)[rank] for parts in batches]
        wrapped = DistributedDataParallel(module)
        result = train(wrapped, module.update, own)
        torch.save((*result, module.state_dict()), f"{folder}/{name}-{rank}")
    module, batches = method("byol")
    own = [shares(parts)[rank] for parts in batches]
    # The mean of the ranks' means is another number. The process serves other tests afterwards.
    with mock.patch.object(methods.byol, "mean", lambda loss, rows: loss):
        result = train(DistributedDataParallel(module), module.update, own)
    torch.save(result, f"{folder}/wrong-{rank}")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    spawn(_ranks, 2, folder, str(folder))
    return folder


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", EVERY)
def test_ranks_train_like_one_process(name, ranks):
    module, batches = EVERY[name](name)
    losses, grads = train(module, module.update, batches)
    assert all((g != 0).any() for g in grads)
    expected = {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}
    for rank in range(2):
        found = torch.load(f"{ranks}/{name}-{rank}", weights_only=True)
        same(found[0], losses)
        same(found[1], grads)
        same({k: found[2][k] for k in expected}, expected)


def test_means_of_unequal_ranks_are_noticed(ranks):
    module, batches = method("byol")
    _, grads = train(module, module.update, copy.deepcopy(batches))
    _, wrong = torch.load(f"{ranks}/wrong-0", weights_only=True)
    assert not torch.allclose(grads[0], wrong[0], rtol=1e-3)
