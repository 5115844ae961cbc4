"""The whole step of pretraining in a CUDA graph: the numbers of plain steps, and nothing that the
host reads.

As in test_gpu.py, "cuda" needs a GPU and "cpu" runs the same lines, where a step is kept to the
rules of a capture but not captured.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

for name in ("lightning_fabric", "sklearn", "safetensors", "rich"):
    pytest.importorskip(name)

from test_pretrain import some_photographs  # noqa: E402

from fastcl.pretrain import graph, session  # noqa: E402
from fastcl.pretrain.inputs import Batch  # noqa: E402
from fastcl.pretrain.recipe import GRAPHED, resolve  # noqa: E402
from fastcl.pretrain.run import Run  # noqa: E402

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = pytest.mark.parametrize("device", [GPU, "cpu"])
# What waits for the device, as its result is a number or has a size that only the device knows.
WAITS = "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal"


class NoReads(TorchDispatchMode):
    """Fails where the host reads a tensor."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        assert name not in WAITS, f"the host reads the result of {name}"
        return function(*arguments, **(options or {}))


def run_of(folder, device, method, **choices):
    """Of six steps per epoch."""
    from lightning_fabric import Fabric

    images = some_photographs()
    given = {"epochs": 2, "batch_size": 16, "seed": 5, "backbone": "small"} | choices
    config = resolve(images, method=method, data="x", precision="32", devices=1, **given)
    fabric = Fabric(accelerator=device, devices=1)
    fabric.launch()
    return Run(config, images, folder, fabric)


def as_on_a_gpu(monkeypatch):
    """What is looked at on the CPU alone, where it costs no wait."""
    for name in ("_check.seen", "contrast.gradients.is_one", "contrast.node.is_one"):
        monkeypatch.setattr(f"fastcl.{name}", lambda x: False)


@DEVICES
@pytest.mark.parametrize(
    "optimizer", ["adamw", *(pytest.param(x, marks=pytest.mark.slow) for x in ("sgd", "lars"))]
)
def test_a_graphed_run_has_the_numbers_of_a_plain_one(tmp_path, device, optimizer):
    runs = []
    for i, on in enumerate((False, True)):
        runs.append(run_of(tmp_path / str(i), device, "moco", optimizer=optimizer, cuda_graph=on))
        assert runs[i].train()
    plain, graphed = runs
    assert isinstance(graphed._step, graph.GraphedStep)
    assert graphed._step.count == 2 * graphed.steps > graph.PLAIN
    assert (graphed._step.graph is not None) == (device == "cuda")
    for a, b in zip(plain.history, graphed.history, strict=True):
        assert a["learning_rate"] == pytest.approx(b["learning_rate"])
        # On a GPU graphs draw their random numbers from another place. On the CPU the fused
        # optimiser rounds otherwise, which AdamW's quotients of small gradients make larger.
        near = 0.2 if device == "cuda" else 1e-4 if optimizer != "adamw" else 2e-3
        assert a["loss"] == pytest.approx(b["loss"], rel=near)


@DEVICES
def test_a_replay_is_a_step_from_the_same_state(tmp_path, device):
    """Plain and captured, on one batch and with the same random numbers."""
    run = run_of(tmp_path, device, "simclr", cuda_graph=True)
    batches = [run.feed.batch(*divmod(k, run.steps)) for k in range(graph.PLAIN + 2)]
    for batch in batches[:-1]:
        run._step(batch, 0.1)
    state = [*run.method.state_dict().values()] + [
        x for s in run.optimizer.state.values() for x in s.values() if isinstance(x, torch.Tensor)
    ]
    before = [x.clone() for x in state]
    torch.manual_seed(3)
    replayed = [run._step(batches[-1], 0.1).clone(), *(x.clone() for x in state)]
    for x, old in zip(state, before, strict=True):
        x.copy_(old)
    torch.manual_seed(3)
    plain = [run._step.step(batches[-1], run._step.rate), *state]
    for a, b in zip(replayed, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("method", GRAPHED)
def test_no_graphed_step_reads_on_the_host(tmp_path, method, monkeypatch):
    as_on_a_gpu(monkeypatch)
    run = run_of(tmp_path, "cpu", method, cuda_graph=True)
    run._step(run.feed.batch(0, 0), 0.1)  # constants are made once
    batch = run.feed.batch(0, 1)
    with NoReads():
        found = run._step(batch, 0.1)
    assert found[0].isfinite()


def test_a_step_that_reads_on_the_host_is_found(tmp_path, monkeypatch):
    as_on_a_gpu(monkeypatch)
    run = run_of(tmp_path, "cpu", "instdisc")  # the numbers of the images are looked at
    run._step(run.feed.batch(0, 0), 0.1)
    batch = run.feed.batch(0, 1)
    with pytest.raises(AssertionError, match="the host reads"), NoReads():
        run._step(batch, 0.1)


def test_what_cannot_be_captured_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="a step of byol reads or counts on the host; those of"):
        run_of(tmp_path, "cpu", "byol", cuda_graph=True)
    images = some_photographs()
    with pytest.raises(ValueError, match="cuda-graph needs a single device, got 2"):
        resolve(images, method="moco", data="x", precision="32", devices=2, seed=0, cuda_graph=True)
    run = run_of(tmp_path, "cpu", "simclr", cuda_graph=True)
    first = run.feed.batch(0, 0)
    run._step(first, 0.1)
    with pytest.raises(ValueError, match="batch must have the shapes .* of the first, got"):
        run._step(Batch(first.images[:8], first.index[:8], None), 0.1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="cuda-graph needs a GPU, and there is none here"):
        session.pretrain(None, method="moco", data="digits", cuda_graph=True)
