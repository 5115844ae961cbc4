"""The CUDA and Triton kernels on a device: every loss of the table, and the state operators."""

import pytest
import torch
from cases import CASES, run
from test_losses import assert_within_budget

import fastcl
from fastcl.contrast import contrast

pytestmark = pytest.mark.gpu

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Around the tiles of the kernels, and one size of a real batch.
ROWS = (1, 2, 63, 65, 127, 128, 129, 513, 2000)
WIDTHS = (1, 16, 100, 128, 256, 384, 640, 768, 1024, 4096)


def on_device(function):
    """A function of CPU tensors that runs on the device; gradients flow back."""

    def call(**inputs):
        moved = {k: x.cuda() if isinstance(x, torch.Tensor) else x for k, x in inputs.items()}
        return function(**moved).cpu()

    return call


def check(case, n, d, temperature, dtype):
    tensors, kwargs = case.arguments(max(n, case.smallest), d, temperature)
    tensors = {k: x.to(dtype).double() if x.is_floating_point() else x for k, x in tensors.items()}
    exact, exact_grads = run(case.plain, tensors, case.constants, kwargs, torch.float64)
    plain, plain_grads = run(case.plain, tensors, case.constants, kwargs, dtype)
    ours, grads = run(on_device(case.function), tensors, case.constants, kwargs, dtype)
    assert_within_budget(ours, plain, exact, dtype, "loss")
    for name, grad in grads.items():
        assert_within_budget(grad, plain_grads[name], exact_grads[name], dtype, f"d{name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_over_rows(case, dtype):
    for n in ROWS:
        check(case, n, 128, 0.1, dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_over_widths(case):
    for d in WIDTHS:
        check(case, 150, d, 0.1, torch.bfloat16)


@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.02, 0.01, 0.005])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_budget_over_temperatures(case, temperature):
    for dtype in (torch.bfloat16, torch.float32):
        check(case, 200, 128, temperature, dtype)


def test_converged_pairs_keep_their_gradient():
    """Positive cosine 0.9 at scale 100: the gradient is a small difference of large numbers."""
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(512, 256, dtype=torch.float64), dim=1)
    noise = torch.nn.functional.normalize(torch.randn(512, 256, dtype=torch.float64), dim=1)
    rows = {"image": x, "text": 0.9 * x + (1 - 0.81) ** 0.5 * noise}
    rows = {k: v.bfloat16().double() for k, v in rows.items()}
    case = next(c for c in CASES if c.name == "clip")
    tensors = {**rows, "logit_scale": torch.tensor(100.0, dtype=torch.float64)}
    _, exact = run(case.plain, tensors, (), {}, torch.float64)
    half = {k: v.bfloat16().cuda().requires_grad_() for k, v in rows.items()}
    fastcl.functional.clip(**half, logit_scale=torch.tensor(100.0).cuda()).backward()
    for k, v in half.items():
        error = (v.grad.cpu().double() - exact[k]).norm() / exact[k].norm()
        assert error < 5e-3, f"d{k}: relative error {error:.1e}"  # 2e-3 and the rounded result


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_same_bits_twice(case):
    tensors, kwargs = case.arguments(1000, 128, 0.07)
    function = on_device(case.function)
    first = run(function, tensors, case.constants, kwargs, torch.bfloat16)
    second = run(function, tensors, case.constants, kwargs, torch.bfloat16)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(grad, second[1][name]) for name, grad in first[1].items())


def test_poisoned_row_gives_nan():
    z = torch.randn(2, 300, 64, device="cuda")
    z[0, 7, 3] = torch.nan
    assert fastcl.functional.nt_xent(*z).isnan()


def test_cuda_graph_of_a_moco_step():
    """Loss, backward, queue and momentum in a graph: the same numbers as outside it."""
    torch.manual_seed(0)
    queue = fastcl.Queue(1024, 64, device="cuda")
    query = torch.randn(32, 64, device="cuda", requires_grad=True)
    key = torch.randn(32, 64, device="cuda")
    target, online = (torch.randn(3, 5, device="cuda") for _ in range(2))

    def step():
        query.grad = None
        loss = fastcl.functional.moco(query, key, queue.rows)
        loss.backward()
        queue.push(key)
        fastcl.functional.momentum_update_([target], [online], 0.9)
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    before = [x.clone() for x in (queue.rows, queue.pointer, target)]
    graph.replay()
    ours = [x.clone() for x in (captured, query.grad, queue.rows, queue.pointer, target)]
    queue.rows.copy_(before[0]), queue.pointer.copy_(before[1]), target.copy_(before[2])
    expected = [step(), query.grad, queue.rows, queue.pointer, target]
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_half_the_memory_of_one_logit_matrix():
    """Linear memory: 16,384 rows would need 1 GB for the logits alone."""
    z = torch.randn(2, 8192, 128, device="cuda", requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fastcl.functional.nt_xent(*z).backward()
    assert torch.cuda.max_memory_allocated() - before < 128e6


def test_siglip_in_linear_memory():
    """One chunk of weights, 134 MB: the 24,576 x 24,576 logits would take 2.4 GB."""
    image, text = (
        torch.randn(24576, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(2)
    )
    scale, bias = (torch.tensor(x, device="cuda", requires_grad=True) for x in (10.0, -10.0))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fastcl.functional.siglip(image, text, scale, bias).backward()
    assert torch.cuda.max_memory_allocated() - before < 256e6
    assert all(x.grad.isfinite().all() for x in (image, text, scale, bias))


@pytest.mark.slow
def test_more_than_2_31_elements():
    """64-bit offsets: 5,000,000 queued keys of width 512 in bfloat16."""
    if torch.cuda.get_device_properties(0).total_memory < 30e9:
        pytest.skip("needs 30 GB of device memory")
    queue = torch.zeros(5_000_000, 512, device="cuda", dtype=torch.bfloat16)
    queue[-1, 0] = 1
    q = torch.zeros(1, 512, device="cuda", dtype=torch.bfloat16)
    q[0, 0] = 1
    result = contrast(q, queue, scale=20.0, extra=torch.ones(1, device="cuda"))
    expected = torch.log1p(torch.tensor(5e6 - 1).double() * torch.exp(torch.tensor(-20.0)) + 1)
    torch.testing.assert_close(result.loss.cpu().double()[0], expected, rtol=1e-3, atol=1e-3)
