"""Queue and momentum on a device, and a whole step of MoCo: in a graph, and without a wait.

As in test_gpu.py, "cuda" needs a GPU and "cpu" runs the same lines.
"""

import re
from pathlib import Path

import pytest
import torch

import fastcl
import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = pytest.mark.parametrize("device", [GPU, "cpu"])
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "cuda-graphs.md").read_text()
WHOLE, PART = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def _state(size, width, dtype, device):
    queue = torch.full((size, width), 9.0, device=device, dtype=dtype)
    return queue, torch.zeros((), dtype=torch.int64, device=device)


@DEVICES
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_queue_is_the_references(dtype, normalize, device):
    """Any batch, also one that wraps or is larger than the queue; the pointer too."""
    pair = [_state(100, 37, dtype, device) for _ in range(2)]
    for rows in (1, 64, 64, 260, 100):
        new = torch.randn(rows, 37, device=device)
        ops.queue_push_(*pair[0], new, normalize)
        reference.queue_push_(*pair[1], new, normalize)
    assert pair[0][1].item() == pair[1][1].item() == 489
    step = torch.finfo(dtype).eps if normalize else 0
    torch.testing.assert_close(pair[0][0], pair[1][0], rtol=step, atol=step)


@DEVICES
@pytest.mark.parametrize(
    "into, source",
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
    ],
)
def test_momentum_is_the_references(into, source, device):
    """More tensors than one launch takes, empty and misaligned ones, random rounding: same bits."""
    shapes = [(8193,), (), (0,), (3, 5), *[(7,)] * 1200]
    online = [torch.randn(s, device=device).to(source) for s in shapes]
    online.append(torch.randn(1001, device=device).to(source)[1:])
    start = [torch.randn(o.shape, device=device).to(into) for o in online]
    ours, theirs = ([t.clone() for t in start] for _ in range(2))
    seeds = [torch.tensor(5, device=device) for _ in range(2)]
    momentum = torch.tensor(0.99, dtype=torch.float64, device=device)
    ops.momentum_update_(ours, online, 0.0, momentum, seeds[0])
    reference.momentum_update_(theirs, online, 0.0, momentum, seeds[1])
    assert seeds[0].item() == seeds[1].item() == 6
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def moco_step(device):
    """Loss, backward, queue and momentum as a closure, and the tensors that it changes."""
    queue = fastcl.Queue(1024, 64, device=device)
    query = torch.randn(32, 64, device=device, requires_grad=True)
    key = torch.randn(32, 64, device=device)
    target, online = (torch.randn(3, 5, device=device) for _ in range(2))

    def step():
        query.grad = None
        loss = F.moco(query, key, queue.rows)
        loss.backward()
        queue.push(key, normalize=True)
        F.momentum_update_([target], [online], 0.9)
        return loss

    return step, query, (queue.rows, queue.pointer, target)


@DEVICES
def test_graph_of_a_moco_step(device):
    """Replayed from a CUDA graph, the same numbers as outside it; on the CPU just run twice."""
    step, query, state = moco_step(device)
    if device == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        before = [x.clone() for x in state]
        graph.replay()
    else:
        before = [x.clone() for x in state]
        captured = step()
    ours = [x.detach().clone() for x in (captured, query.grad, *state)]
    for x, old in zip(state, before, strict=True):
        x.copy_(old)
    expected = [step(), query.grad, *state]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b.detach())


def example(code, device, monkeypatch):
    """The names that a documented example leaves."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    names = {}
    exec(compile(code, "docs/cuda-graphs.md", "exec"), names)
    return names


@DEVICES
def test_the_documented_step(device, monkeypatch):
    """A replay moves weights, twin, queue and loss as the step itself does from the same state."""
    e = example(WHOLE, device, monkeypatch)
    assert e["loss"].isfinite() and e["momentum"].item() == pytest.approx(0.998)
    assert e["queue"].pointer.item() == 64 * (8 if device == "cuda" else 5)
    velocities = [s["momentum_buffer"] for s in e["optimizer"].state.values()]
    state = [*e["encoder"].parameters(), *e["twin"].parameters(), *e["queue"].buffers()]
    state = [x.detach() for x in (*state, *velocities)]
    before = [x.clone() for x in state]
    ours = [x.clone() for x in (e["run"](), *state)]
    for x, old in zip(state, before, strict=True):
        assert not torch.equal(x, old)
        x.copy_(old)
    for a, b in zip(ours, (e["step"](), *state), strict=True):
        torch.testing.assert_close(a, b)


@DEVICES
def test_the_documented_losses(device, monkeypatch):
    """Graphed by torch, with the gradients of the plain functions; the second time too."""
    e = example(PART, device, monkeypatch)
    for _ in range(2):
        x, y, log_scale = e["rows"](), e["rows"](), torch.tensor(2.0, device=device)
        inputs = x, y, log_scale.requires_grad_()
        ours = e["nt_xent"](x, y) + e["clip"](*inputs)
        plain = F.nt_xent(x, y, temperature=0.5) + F.clip(x, y, log_scale.exp())
        torch.testing.assert_close(ours, plain)
        ours = torch.autograd.grad(ours, inputs)
        torch.testing.assert_close(ours, torch.autograd.grad(plain, inputs))


@DEVICES
def test_no_step_waits_for_the_device(device):
    """Losses, backward, queue and momentum: nothing on the host reads a result."""
    step, _, _ = moco_step(device)
    z = [torch.randn(64, 128, device=device, requires_grad=True) for _ in range(2)]
    scale = torch.tensor(10.0, device=device, requires_grad=True)

    step()  # compiles
    F.nt_xent(*z), F.clip(*z, scale), F.info_nce(*z)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        for loss in (F.nt_xent(*z), F.clip(*z, scale), F.info_nce(*z)):
            loss.backward()
        step()
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert all(x.grad.isfinite().all() for x in (*z, scale))
