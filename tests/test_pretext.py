"""Pretext tasks: their losses against plain PyTorch, alone and beside other losses."""

import plain
import plain_pretext
import pytest
import torch
from hypothesis import given, settings
from pretext_tasks import SEEDS, TASKS, images, value_and_gradients, vectors
from torch import nn

from fastcl import pretext


@pytest.mark.parametrize("name", TASKS)
def test_loss_and_gradients_equal_plain_pytorch(name):
    build, batch = TASKS[name]
    task = build().double()
    if name == "colorization":
        task.rebalance(images(8))
    drawn = task.draw(batch())
    ours = value_and_gradients(task, lambda: task.loss(*drawn))
    reference = getattr(plain_pretext, name)
    expected = value_and_gradients(task, lambda: reference(task, *drawn))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    assert all((g != 0).any() for g in ours[1])


@pytest.mark.parametrize("name", TASKS)
def test_forward_is_loss_of_a_draw(name):
    build, batch = TASKS[name]
    task, x = build().double(), batch()
    torch.manual_seed(3)
    value = task(x)
    torch.manual_seed(3)
    assert torch.equal(value, task.loss(*task.draw(x)))


def test_skip_gram_equals_plain_pytorch():
    task = pretext.SkipGram(torch.rand(20) + 0.1, width=5, noise=4).double()
    nn.init.normal_(task.contexts)
    center, context = torch.randint(20, (2, 30))
    index = task.draw(context)
    assert torch.equal(index[:, 0], context) and index.shape == (30, 5)

    def reference():
        return plain.negative_sampling(task.vectors[center], task.contexts, index)

    ours = value_and_gradients(task, lambda: task.loss(center, index))
    torch.testing.assert_close(ours, value_and_gradients(task, reference), rtol=1e-9, atol=1e-12)


def test_noise_follows_the_counts_to_three_quarters():
    counts = torch.tensor([1.0, 16.0, 81.0])
    task = pretext.SkipGram(counts, width=2)
    expected = torch.tensor([1.0, 8.0, 27.0]) / 36
    torch.testing.assert_close(task.table.probabilities, expected)


def test_auxiliary_adds_weighted_losses():
    backbone = vectors(3)
    tasks = {"rotation": pretext.Rotation(backbone, width=6)}
    together = pretext.Auxiliary(tasks, {"rotation": 0.3}).double()
    x, main = images(), torch.tensor(2.0, dtype=torch.float64)
    assert torch.allclose(together(main, x), 2 + 0.3 * tasks["rotation"](x))


@given(seed=SEEDS)
def test_prototypes_are_class_means(seed):
    torch.manual_seed(seed)
    support, query, labels = torch.randn(6, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    means = torch.stack([support[labels == c].mean(0) for c in range(3)])
    expected = -(torch.cdist(query, means, compute_mode="donot_use_mm_for_euclid_dist") ** 2)
    torch.testing.assert_close(pretext.prototype_logits(support, labels, query), expected)


@settings(max_examples=5)
@given(seed=SEEDS)
def test_recipes_equal_their_sums(seed):
    torch.manual_seed(seed)
    backbone = vectors(3).double()
    task = pretext.Rotation(backbone, width=6).double()
    x, y, more = images(4), torch.tensor([0, 1, 0, 1]), images(5)
    semi = pretext.SemiSupervised(backbone, task, width=6, classes=2, weight=0.5).double()
    main = nn.functional.cross_entropy(semi.classifier(backbone(x)), y)
    torch.testing.assert_close(semi(x, y, more), main + 0.5 * task(torch.cat([x, more])))
    few = pretext.FewShot(backbone, task, weight=0.5)
    logits = pretext.prototype_logits(backbone(x), y, backbone(more[:2]))
    main = nn.functional.cross_entropy(logits, y[:2])
    torch.testing.assert_close(
        few(x, y, more[:2], y[:2]), main + 0.5 * task(torch.cat([x, more[:2]]))
    )
