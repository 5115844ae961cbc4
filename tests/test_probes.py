"""The linear probe against scikit-learn; fine-tuning with a fraction of the labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

for _name in ("sklearn", "safetensors", "PIL"):
    pytest.importorskip(_name)

from fastcl.evaluate import linear_probe  # noqa: E402
from fastcl.evaluate.finetune import finetune, finetune_steps  # noqa: E402
from fastcl.evaluate.linear import draw_fraction, fit_head  # noqa: E402
from fastcl.pretrain.augment import Views  # noqa: E402
from fastcl.pretrain.data import Images, load_images  # noqa: E402


def clusters(n, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(n) % 4
    return centres[labels] + spread * torch.randn(n, 8, generator=generator), labels


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
@pytest.mark.parametrize("block", [7, 4096])
def test_head_equals_scikit_learn(monkeypatch, penalty, block):
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr("fastcl.evaluate.linear.BLOCK", block)
    x, labels = clusters(200, 2.0, 0)
    peer = LogisticRegression(C=1 / (200 * penalty), tol=1e-8, max_iter=5000)
    peer.fit(x.double().numpy(), labels.numpy())
    weights = fit_head(x.double(), labels, classes=4, penalty=penalty)
    # The biases of all classes may move together; their differences may not.
    bias = weights[:, -1] - weights[:, -1].mean()
    np.testing.assert_allclose(weights[:, :-1].numpy(), peer.coef_, atol=2e-4)
    np.testing.assert_allclose(bias, peer.intercept_ - peer.intercept_.mean(), atol=2e-4)


def test_probe_finds_clusters_and_nothing_in_noise():
    train, test = clusters(400, 1.0, 0), clusters(400, 1.0, 1)
    found = linear_probe(*train, *test)
    assert found.accuracy > 0.9
    noise = linear_probe(torch.randn(400, 8), train[1], torch.randn(400, 8), test[1])
    assert noise.accuracy < 0.4  # chance is 0.25
    stretched = [torch.cat([x * 1024, torch.ones(400, 1)], dim=1) for x in (train[0], test[0])]
    same = linear_probe(stretched[0], train[1], stretched[1], test[1])
    assert abs(same.accuracy - found.accuracy) < 0.01, "scale and constants say nothing"


def test_probe_never_learns_from_the_test_labels():
    train, test = clusters(200, 1.5, 0), clusters(100, 1.5, 1)
    one = linear_probe(*train, *test)
    other = linear_probe(*train, test[0], (test[1] + 1) % 4)
    assert one.penalty == other.penalty and other.accuracy < 0.2 < one.accuracy


def test_probe_names_bad_input():
    x, labels = clusters(8, 1.0, 0)
    with pytest.raises(ValueError, match=r"train_labels must have shape \[8\]"):
        linear_probe(x, labels[:5], x, labels)
    with pytest.raises(TypeError, match="test_labels must be int64"):
        linear_probe(x, labels, x, labels.int())
    with pytest.raises(ValueError, match="train must have two labelled rows"):
        linear_probe(x[:1], labels[:1], x, labels)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.floats(0.01, 1), st.integers(0, 9))
def test_fraction_is_the_same_of_every_class(counts, fraction, seed):
    labels = torch.cat([torch.full((c,), i) for i, c in enumerate(counts)])
    labels = labels[torch.randperm(len(labels))]
    rows = draw_fraction(labels, fraction, seed)
    assert labels[rows].bincount().tolist() == [max(1, round(fraction * c)) for c in counts]
    assert rows.unique().numel() == rows.numel()
    assert torch.equal(rows, draw_fraction(labels, fraction, seed))


def test_steps_follow_the_labels_within_bounds():
    assert finetune_steps(10) == 150 and finetune_steps(10**9) == 20000
    assert finetune_steps(5000) == 30 * 5000 // 128


def bars(n, kind="digits", channels=1):
    """Images whose class is the place of a bright column."""
    labels = torch.arange(n) % 4
    images = torch.randint(0, 60, (n, channels, 8, 8), dtype=torch.uint8)
    images[torch.arange(n), :, :, 2 * labels] = 255
    return Images("bars", kind, images, images.flip(0), labels, labels.flip(0), tuple("0123"))


def network(channels=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 16),
    )  # fmt: skip


def test_finetuning_trains_a_copy_and_repeats_itself():
    images, backbone = bars(160), network()
    before = {name: x.clone() for name, x in backbone.state_dict().items()}
    told = []
    accuracy = finetune(
        backbone, images, 0.25, steps=40, progress=lambda step, steps: told.append((step, steps))
    )
    assert accuracy > 0.6  # chance is 0.25
    for name, x in backbone.state_dict().items():
        assert torch.equal(x, before[name]), f"{name} of the caller's network has moved"
    assert told[-1] == (40, 40)
    torch.rand(3)
    assert finetune(backbone, images, 0.25, steps=40) == accuracy, "the seed decides all chance"
    shuffled = replace(images, train_labels=images.train_labels[torch.randperm(160)])
    assert finetune(backbone, shuffled, 0.25, steps=40) < 0.5, "nothing to learn from wrong labels"


def test_finetuning_moves_the_backbone():
    """The negative control: with all steps of size zero, the zero classifier knows nothing."""
    assert finetune(network(), bars(160), 0.25, steps=5, learning_rate=0.0) == 0.25


def test_finetuning_of_photographs():
    images = bars(64, "photographs", 3)
    views = Views("photographs", 8, (torch.zeros(3), torch.ones(3))).labelled(images.train)
    assert views.shape == (64, 3, 8, 8) and views.min() >= 0 and views.max() <= 1
    assert 0 <= finetune(network(3), images, 1.0, steps=2) <= 1


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_bad_fractions_are_named(fraction):
    with pytest.raises(ValueError, match="fraction"):
        finetune(network(), bars(8), fraction)


def test_unlabelled_data_cannot_be_finetuned_on():
    with pytest.raises(ValueError, match="images must have labels"):
        finetune(network(), replace(bars(8), train_labels=None), 0.5)


def test_limit_takes_a_fixed_draw_of_each_split():
    whole, some = load_images("digits"), load_images("digits", limit=50)
    assert some.train.shape[0] == some.test.shape[0] == 50
    assert torch.equal(some.train, load_images("digits", limit=50).train)
    assert some.train_labels.unique().numel() == 10, "a draw, not the first of a sorted set"
    matches = (whole.train[None] == some.train[:5, None]).flatten(2).all(2)
    assert torch.equal(whole.train_labels[matches.int().argmax(1)], some.train_labels[:5])
    assert torch.equal(load_images("digits", limit=10**6).train, whole.train)
    with pytest.raises(ValueError, match="limit must be 2 or more, got 1"):
        load_images("digits", limit=1)
