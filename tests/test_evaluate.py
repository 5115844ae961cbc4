"""Neighbours against scikit-learn, the probe, the pictures."""

import pytest
import torch

sklearn = pytest.importorskip("sklearn")

from fastcl.evaluate.features import pixels  # noqa: E402
from fastcl.evaluate.knn import knn_predict, nearest  # noqa: E402
from fastcl.evaluate.linear import draw_labelled, probe_accuracy  # noqa: E402
from fastcl.evaluate.plot import plot_curves, plot_embedding  # noqa: E402


def clusters(n: int, d: int = 8, classes: int = 4, spread: float = 1.0):
    """Points around one centre per class, [n, d], and their labels [n]."""
    centres = 2 * torch.randn(classes, d, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(n) % classes
    return centres[labels] + spread * torch.randn(n, d), labels


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
@pytest.mark.parametrize("k", [1, 20, 97])
def test_nearest_equals_topk_of_the_whole_matrix(block, k):
    query, bank = torch.randn(31, 8), torch.randn(97, 8)
    values, rows = nearest(query, bank, k, block)
    expected = (query.double() @ bank.double().T).topk(k)
    torch.testing.assert_close(values.double(), expected.values, rtol=1e-5, atol=1e-5)
    assert (rows == expected.indices).float().mean() > 0.99  # near ties may swap


@pytest.mark.parametrize("k", [0, 98])
def test_nearest_names_a_bad_k(k):
    with pytest.raises(ValueError, match="k must be from 1 to the 97 rows"):
        nearest(torch.randn(3, 8), torch.randn(97, 8), k)


def test_knn_equals_scikit_learn():
    import numpy as np
    from sklearn.neighbors import KNeighborsClassifier

    bank, labels = clusters(400, spread=2.5)
    query, truth = clusters(200, spread=2.5)
    peer = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    expected = torch.from_numpy(peer.fit(bank.numpy(), labels.numpy()).predict(query.numpy()))
    predicted = knn_predict(query, bank, labels)
    assert torch.equal(predicted, expected)
    accuracy = (predicted == truth).float().mean()
    assert 0.4 < accuracy < 1, "the clusters must overlap, or any vote would pass"


def test_knn_with_a_small_bank_and_a_low_temperature():
    bank, labels = clusters(8, spread=0.1)
    assert torch.equal(knn_predict(bank, bank, labels, temperature=1e-3), labels)


def test_draws_have_the_labels_asked_for():
    labels = torch.tensor([0] * 9 + [1] * 9 + [2] * 2)
    rows = draw_labelled(labels, 5, seed=0)
    assert labels[rows].bincount().tolist() == [5, 5, 2]
    assert rows.unique().numel() == rows.numel()
    assert torch.equal(rows, draw_labelled(labels, 5, seed=0))
    assert not torch.equal(rows, draw_labelled(labels, 5, seed=1))


def test_probe_sees_clusters_and_nothing_in_noise():
    train, train_labels = clusters(200, spread=0.5)
    test, test_labels = clusters(200, spread=0.5)
    assert probe_accuracy(train, train_labels, test, test_labels) > 0.9
    noise = probe_accuracy(torch.randn(200, 8), train_labels, torch.randn(200, 8), test_labels)
    assert noise < 0.45  # chance is 0.25


def test_probe_ignores_the_scale_of_features_and_bears_a_constant_one():
    train, train_labels = clusters(80)
    test, test_labels = clusters(80)
    expected = probe_accuracy(train, train_labels, test, test_labels)
    stretched = [torch.cat([x * 1024, torch.ones(80, 1)], dim=1) for x in (train, test)]
    assert probe_accuracy(stretched[0], train_labels, stretched[1], test_labels) == expected


def test_pixels_are_the_image_up_to_32_and_averages_beyond():
    small = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(pixels(small), small.flatten(1) / 255)
    large = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    expected = large.double().view(3, 3, 32, 2, 32, 2).mean((3, 5)).flatten(1) / 255
    torch.testing.assert_close(pixels(large).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
def test_pictures(tmp_path, labelled):
    pytest.importorskip("matplotlib")
    history = [{"epoch": i, "loss": 1 / i, "top1": 0.1 * i} for i in (1, 2, 3)]
    plot_curves(history, tmp_path / "curves.png")
    x, labels = clusters(40)
    plot_embedding(x, labels if labelled else None, "abcd", tmp_path / "embedding.png")
    for name in ("curves.png", "embedding.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
