"""Each library's own training code with its loss, then with fastcl's from the same seed: one curve.

open_clip's train_one_epoch is in examples/, which compares the curves too. SupContrast is not
packaged and the training classes of solo-learn need packages that are gone: here the steps of their
training scripts, around the loss.
"""

import copy
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peers import peer
from test_compat_plain import sup_contrast
from torch import nn

import fastcl
from benchmarks.absent import stand_in_for_torchvision
from fastcl.compat import supcontrast

STEPS, BATCH = 12, 16


def encoder(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * 36, width))  # fmt: skip


def batches():
    """Two noisy views of images of four kinds, their labels."""
    kinds = torch.randn(4, 1, 8, 8)
    for _ in range(STEPS):
        labels = torch.randint(0, 4, (BATCH,))
        images = kinds[labels] + 0.3 * torch.randn(BATCH, 1, 8, 8)
        yield images, images + 0.3 * torch.randn_like(images), labels


def assert_same(train, library):
    """The curve of the library, and that after fastcl.patch; train returns losses."""
    torch.manual_seed(0)
    before = torch.stack(train())
    fastcl.patch(library)
    try:
        torch.manual_seed(0)
        after = torch.stack(train())
    finally:
        fastcl.unpatch(library)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert before[-1] != before[0] and not torch.equal(after, before)  # trained, and by another


def stepped(optimizer, loss, losses):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())


def test_lightly_simclr():
    """lightly's examples/pytorch/simclr.py."""
    loss, heads = peer("lightly.loss"), peer("lightly.models.modules")

    def train():
        model = nn.Sequential(encoder(), heads.SimCLRProjectionHead(16, 16, 8))
        criterion, losses = loss.NTXentLoss(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
        for x0, x1, _ in batches():
            stepped(optimizer, criterion(model(x0), model(x1)), losses)
        return losses

    assert_same(train, "lightly")


def test_lightly_moco():
    """lightly's examples/pytorch/moco.py, with its momentum update and memory bank."""
    loss, heads = peer("lightly.loss"), peer("lightly.models.modules")
    utils = peer("lightly.models.utils")

    def train():
        parts = [encoder(), heads.MoCoProjectionHead(16, 16, 8)]
        twins = copy.deepcopy(parts)
        for twin in twins:
            utils.deactivate_requires_grad(twin)
        criterion, losses = loss.NTXentLoss(memory_bank_size=(64, 8)), []
        optimizer = torch.optim.SGD(nn.ModuleList(parts).parameters(), lr=0.06)
        for x_query, x_key, _ in batches():
            for part, twin in zip(parts, twins, strict=True):
                utils.update_momentum(part, twin, m=0.99)
            query = parts[1](parts[0](x_query))
            key = twins[1](twins[0](x_key)).detach()
            stepped(optimizer, criterion(query, key), losses)
        return losses

    assert_same(train, "lightly")


def test_open_clip_step():
    """The step of open_clip's train_one_epoch for a model with a bias: SigLIP's."""
    factory = peer("open_clip.factory")
    options = {
        "distill": False, "model": "tiny", "siglip": True, "horovod": False, "rank": 0,
        "world_size": 1, "loss_dist_impl": None,
    }  # fmt: skip

    def train():
        image, text = encoder(), encoder()
        scale = nn.Parameter(torch.tensor(10.0).log())
        bias, losses = nn.Parameter(torch.tensor(-10.0)), []
        loss = factory.create_loss(type("Arguments", (), options))
        parameters = [*image.parameters(), *text.parameters(), scale, bias]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        for x0, x1, _ in batches():
            out = {
                "image_features": F.normalize(image(x0), dim=-1),
                "text_features": F.normalize(text(x1), dim=-1),
                "logit_scale": scale.exp(), "logit_bias": bias,
            }  # fmt: skip
            stepped(optimizer, sum(loss(**out, output_dict=True).values()), losses)
        return losses

    assert_same(train, "open_clip")


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss", "CrossBatchMemory"])
def test_pytorch_metric_learning_trainer(name):
    """Its trainers.MetricLossOnly, as in its notebooks."""
    module = peer("pytorch_metric_learning.losses")
    trainers = peer("pytorch_metric_learning.trainers")

    def train():
        images, _, labels = (torch.cat(x) for x in zip(*batches(), strict=True))
        trunk, losses = encoder(), []
        if name == "CrossBatchMemory":
            loss = module.CrossBatchMemory(module.NTXentLoss(), 16, memory_size=40)
        else:
            loss = getattr(module, name)()
        trainer = trainers.MetricLossOnly(
            {"trunk": trunk, "embedder": nn.Identity()},
            {"trunk_optimizer": torch.optim.Adam(trunk.parameters(), lr=1e-3)},
            BATCH, {"metric_loss": loss}, torch.utils.data.TensorDataset(images, labels),
            dataloader_num_workers=0, data_device="cpu",
            end_of_iteration_hook=lambda t: losses.append(t.losses["metric_loss"].detach()),
        )  # fmt: skip
        trainer.train(num_epochs=1)
        return losses

    assert_same(train, "pytorch_metric_learning")


def test_info_nce():
    """The loop of its readme; a parameter as the negatives."""
    module = peer("info_nce")

    def train():
        model, losses = encoder(), []
        negatives = nn.Parameter(torch.randn(24, 16))
        loss = module.InfoNCE()
        optimizer = torch.optim.Adam([*model.parameters(), negatives], lr=1e-3)
        for x0, x1, _ in batches():
            stepped(optimizer, loss(model(x0), model(x1), negatives), losses)
        return losses

    assert_same(train, "info_nce")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("matryoshka", [False, True])
@pytest.mark.parametrize("cached", ["", "Cached"])
@pytest.mark.parametrize(
    "name",
    ["MultipleNegativesRankingLoss", "MultipleNegativesSymmetricRankingLoss", "GISTEmbedLoss"],
)
def test_sentence_transformers_trainer(name, cached, matryoshka):
    """Its SentenceTransformerTrainer over ten steps of the example; cached in unequal parts."""
    for needed in ("datasets", "accelerate"):
        peer(needed)
    module = peer("sentence_transformers.sentence_transformer.losses")
    path = Path(__file__).parents[1] / "examples" / "sentence_transformers_trainer.py"
    with stand_in_for_torchvision():
        example = runpy.run_path(str(path))

    def train():
        losses = []

        def make_loss(model):
            guide = [copy.deepcopy(model)] if name == "GISTEmbedLoss" else []
            parts = {"mini_batch_size": 6} if cached else {}
            loss = getattr(module, cached + name)(model, *guide, **parts)
            if matryoshka:
                loss = module.MatryoshkaLoss(model, loss, [64, 16])
            loss.register_forward_hook(lambda module, inputs, loss: losses.append(loss.detach()))
            return loss

        example["train"](make_loss, epochs=2)
        assert len(losses) == 10
        return losses

    assert_same(train, "sentence_transformers")


@pytest.mark.parametrize("supervised", [False, True])
def test_solo_simclr(supervised):
    """The training step of its SimCLR: the loss of two views, positives by label where asked."""
    module = peer("solo.losses")

    def train():
        model, losses = encoder(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for x0, x1, labels in batches():
            same = labels.repeat(2) == labels.repeat(2)[:, None]
            mask = same.fill_diagonal_(False) if supervised else None
            loss = module.simclr_loss_func(model(x0), model(x1), 0.2, mask)
            stepped(optimizer, loss, losses)
        return losses

    assert_same(train, "solo")


@pytest.mark.parametrize("supervised", [False, True])
def test_supcontrast(supervised):
    """The step of its main_supcon.py, whose loss is the plain one of test_compat_plain."""

    def plain(features, labels=None):
        ids = torch.arange(len(features)) if labels is None else labels
        return sup_contrast(features, ids == ids[:, None])

    def train(criterion):
        torch.manual_seed(0)
        model, losses = encoder(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for x0, x1, labels in batches():
            rows = F.normalize(model(torch.cat([x0, x1])), dim=1)
            features = torch.stack(rows.split(BATCH), dim=1)
            given = (labels,) if supervised else ()
            stepped(optimizer, criterion(features, *given), losses)
        return torch.stack(losses)

    before, after = train(plain), train(supcontrast.SupConLoss())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert before[-1] != before[0]
