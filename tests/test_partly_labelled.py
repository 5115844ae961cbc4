"""Labels of -1 stand for none; frozen batch normalisation stays frozen."""

import pytest
import torch
from torch import nn

from fastcl import functional, methods
from fastcl.evaluate.features import extract
from fastcl.evaluate.knn import knn_predict
from fastcl.evaluate.linear import draw_fraction, linear_probe, probe_accuracy
from fastcl.evaluate.retrieval import retrieve


def _data(n=40, d=6):
    labels = torch.arange(n) % 3
    return torch.randn(n, d) + 3 * nn.functional.one_hot(labels, d), labels


def test_rows_without_a_label_are_left_out():
    (train, labels), (test, truth) = _data(), _data()
    partly, some = labels.clone(), truth.clone()
    partly[::4], some[::5] = -1, -1
    known, shown = partly >= 0, some >= 0
    votes = knn_predict(test, train, partly, k=5)
    assert torch.equal(votes, knn_predict(test, train[known], labels[known], k=5))
    for function in (linear_probe, probe_accuracy):
        got = function(train[known], partly[known], test, some)
        assert got == function(train[known], labels[known], test[shown], truth[shown])
    assert linear_probe(train, partly, test, some) == linear_probe(
        train[known], labels[known], test[shown], truth[shown]
    )
    assert retrieve(test, some, train, partly, k=4) == retrieve(
        test[shown], truth[shown], train[known], labels[known], k=4
    )
    assert (partly[draw_fraction(partly, 0.5, 0)] >= 0).all()


def test_no_label_at_all_and_too_many_classes_are_named():
    train, labels = _data()
    with pytest.raises(ValueError, match="labels must have a label from 0"):
        knn_predict(train, train, labels * 0 - 1)
    with pytest.raises(ValueError, match="labels must be below classes, 2, got 2"):
        knn_predict(train, train, labels, classes=2)


def test_a_query_that_is_not_finite_has_no_class():
    train, labels = _data()
    query = train[:3].clone()
    query[1] = torch.nan
    votes = knn_predict(query, train, labels, k=1)
    assert votes.tolist() == [labels[0], -1, labels[2]]


def test_an_unlabelled_image_attracts_its_other_view_alone():
    method = methods.SimCLR(nn.Identity(), width=5, hidden=8, dim=4, loss="sup_con").double().eval()
    views = torch.randn(2, 6, 5, dtype=torch.float64)
    labels = torch.tensor([0, -1, 0, -1, 1, -1])
    z = functional.unit_rows(method.head(torch.cat([*views])))
    alone = torch.tensor([0, 2, 0, 3, 1, 4]).repeat(2)
    want = functional.sup_con(z, alone, temperature=method.temperature, normalize=False)
    torch.testing.assert_close(method(*views, labels), want)


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_batch_normalisation_stays_frozen(fails):
    backbone = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.BatchNorm1d(5 if fails else 4))
    backbone[1].eval()
    images = torch.randint(0, 255, (3, 1, 2, 2), dtype=torch.uint8)
    try:
        extract(backbone, images, (torch.zeros(1), torch.ones(1)))
    except RuntimeError:
        assert fails
    assert [m.training for m in backbone.modules()] == [True, True, False, True]
