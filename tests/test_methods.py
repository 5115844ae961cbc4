"""Every method class against a plain PyTorch reference of the whole method."""

import copy
import io

import plain_methods
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastcl.methods import MoCo, SimCLR


def network(width, seed):
    torch.manual_seed(seed)
    layers = nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU()
    return nn.Sequential(*layers).double()


def train(loss, parameters, views, after_step):
    """Losses of plain gradient descent over a list of batches, and the last gradients."""
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    losses = []
    for view1, view2 in views:
        optimizer.zero_grad()
        value = loss(view1, view2)
        value.backward()
        losses.append(value.detach())
        grads = [p.grad.clone() for p in parameters]
        optimizer.step()
        after_step()
    return torch.stack(losses), grads


def batches(steps, sizes, seed):
    torch.manual_seed(seed + 1)
    return [torch.randn(2, sizes[i % len(sizes)], 6, dtype=torch.float64) for i in range(steps)]


STEPS = st.integers(1, 5)
SIZES = st.lists(st.integers(2, 12), min_size=1, max_size=3)
WIDTHS = st.integers(2, 10)
SEEDS = st.integers(0, 2**31 - 1)


@settings(max_examples=15)
@given(
    steps=STEPS, sizes=SIZES, width=WIDTHS, seed=SEEDS,
    version=st.sampled_from([1, 2]), temperature=st.floats(0.05, 1),
)  # fmt: skip
def test_simclr(steps, sizes, width, seed, version, temperature):
    ours = SimCLR(
        network(width, seed), width=width, version=version, dim=4, temperature=temperature
    ).double()
    twin = copy.deepcopy(nn.Sequential(ours.backbone, ours.head))
    reference = plain_methods.SimCLR(twin, temperature)
    views = batches(steps, sizes, seed)
    result = train(ours, list(ours.parameters()), views, ours.update)
    expected = train(reference.loss, list(twin.parameters()), views, lambda: None)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(list(ours.parameters()), list(twin.parameters()))
    torch.testing.assert_close(list(ours.buffers()), list(twin.buffers()))
    assert ours.rank.shape == (2 * views[-1].shape[1],)


@settings(max_examples=15)
@given(
    steps=STEPS, sizes=SIZES, width=WIDTHS, seed=SEEDS, size=st.integers(1, 30),
    version=st.sampled_from([1, 2]), momentum=st.floats(0, 1), temperature=st.floats(0.05, 1),
)  # fmt: skip
def test_moco(steps, sizes, width, seed, size, version, momentum, temperature):
    ours = MoCo(
        network(width, seed), width=width, version=version, dim=4, queue_size=size,
        momentum=momentum, temperature=temperature,
    ).double()  # fmt: skip
    ours.queue.rows.copy_(nn.functional.normalize(ours.queue.rows, dim=1))
    twin = copy.deepcopy(nn.Sequential(ours.backbone, ours.head))
    reference = plain_methods.MoCo(twin, ours.queue.rows.clone(), momentum, temperature)
    views = batches(steps, sizes, seed)
    trained = [*ours.backbone.parameters(), *ours.head.parameters()]
    result = train(ours, trained, views, ours.update)
    expected = train(reference.loss, list(twin.parameters()), views, lambda: None)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)

    pushed = sum(view.shape[1] for view in views)
    assert int(ours.queue.pointer) == pushed
    oldest_first = ours.queue.rows.roll(-(pushed % size), 0)
    torch.testing.assert_close(oldest_first, torch.stack(reference.queue), rtol=1e-9, atol=1e-9)
    # The reference moves its target at the start of a step, the class at its end.
    reference.loss(*views[0])
    target, twin_target = list(ours.target.parameters()), list(reference.target.parameters())
    torch.testing.assert_close(target, twin_target, rtol=1e-9, atol=1e-9)


def moco(seed=0, **options):
    torch.manual_seed(seed)
    return MoCo(network(8, seed).float(), width=8, dim=4, queue_size=10, **options)


def test_target_gets_no_gradient_and_no_optimiser():
    method = moco()
    method(torch.randn(4, 6), torch.randn(4, 6)).backward()
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    assert all(p.grad is not None for p in method.head.parameters())


def test_state_dict_carries_queue_and_target():
    method = moco()
    for _ in range(3):
        method(torch.randn(4, 6), torch.randn(4, 6)).backward()
        with torch.no_grad():
            method.head[0].weight.add_(0.1)
        method.update()
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other = moco(seed=1)
    other.load_state_dict(torch.load(file))
    views = torch.randn(2, 4, 6)
    method.eval(), other.eval()
    assert torch.equal(method(*views), other(*views))
    assert int(other.queue.pointer) == 12


def test_gradient_accumulation_queues_every_micro_batch_once():
    method = moco()
    for _ in range(2):
        method(torch.randn(3, 6), torch.randn(3, 6)).backward()
    method.update()
    assert int(method.queue.pointer) == 6
    method.update()
    assert int(method.queue.pointer) == 6


def test_validation_leaves_the_queue_alone():
    method = moco().eval()
    with torch.no_grad():
        method(torch.randn(3, 6), torch.randn(3, 6))
    method.update()
    assert int(method.queue.pointer) == 0


@pytest.mark.parametrize(("version", "temperature"), [(1, 0.07), (2, 0.2)])
def test_moco_versions(version, temperature):
    method = moco(version=version)
    assert method.temperature == temperature
    assert isinstance(method.head, nn.Linear if version == 1 else nn.Sequential)


@pytest.mark.parametrize("cls", [SimCLR, MoCo])
def test_bad_options(cls):
    with pytest.raises(ValueError, match="version must be one of 1, 2, got 3"):
        cls(network(4, 0), width=4, version=3)
    with pytest.raises(ValueError, match="temperature must be finite and above 0"):
        cls(network(4, 0), width=4, temperature=0.0)
