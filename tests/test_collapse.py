"""The collapse detector fires on collapsed embeddings and on nothing else."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastcl.evaluate import CollapseWatch, diagnose
from fastcl.methods import SimCLR


@given(st.integers(16, 200), st.integers(2, 150), st.integers(0, 1000))
def test_random_embeddings_are_healthy(n, d, seed):
    torch.manual_seed(seed)
    for x in (torch.randn(n, d), torch.randn(n, d).relu() + 0.05):
        found = diagnose(x)
        assert found.verdict == "healthy" and not found.remedies, found


@given(st.integers(2, 200), st.integers(2, 150), st.sampled_from((0.0, 1e-6, 1e-3)))
def test_constant_embeddings_are_a_complete_collapse(n, d, noise):
    x = torch.full((n, d), 0.3) + noise * torch.randn(n, d)
    found = diagnose(x)
    assert found.verdict == "complete" and found.spread < 0.01
    assert any("learning rate" in text for text in found.remedies)
    assert any("gradient stopped" in text for text in found.remedies)


@pytest.mark.parametrize("directions", [1, 2, 3])
def test_few_directions_are_a_dimensional_collapse(directions):
    x = torch.randn(512, directions) @ torch.randn(directions, 128)
    found = diagnose(x + 1e-4 * torch.randn(512, 128))
    assert found.verdict == "dimensional" and found.spread > 0.1
    assert f"effective rank {found.effective_rank:.1f} of 128" in found.describe()


def test_spread_is_what_the_mean_leaves():
    x = F.normalize(torch.randn(64, 8, dtype=torch.float64) + 0.5, dim=1)
    expected = (1 - x.mean(0).square().sum()).sqrt().item()
    assert diagnose(3 * x).spread == pytest.approx(expected, rel=1e-12)


def test_zeros_are_complete_and_nan_is_not_finite():
    assert diagnose(torch.zeros(8, 4)).verdict == "complete"
    found = diagnose(torch.full((8, 4), float("nan")))
    assert found.verdict == "not finite" and "not finite" in found.describe()
    with pytest.raises(ValueError, match="two rows or more"):
        diagnose(torch.randn(1, 4))


def test_watch_sees_the_head_and_tells_each_kind_once():
    method = SimCLR(torch.nn.Flatten(), width=16)
    watch = CollapseWatch(method, every=3)
    assert watch.look() is None
    assert [step for step in range(7) if watch.due(step)] == [2, 5]
    view = torch.randn(32, 16)
    method(view, view + 0.1)
    found = watch.look()
    assert found.verdict == "healthy" and found.possible_rank == 63, "both views of 32 images"
    assert watch.warning(found) is None
    with torch.no_grad():  # the head maps all images to one point
        for p in method.head[-2].parameters():
            p.zero_()
        method.head[-1].register_parameter("bias", torch.nn.Parameter(torch.ones(128)))
    method(view, view)
    warning = watch.warning(watch.look())
    assert "complete collapse" in warning and "lower the learning rate" in warning
    assert watch.warning(watch.look()) is None, "told already"
