"""The kernels on a device: what has been wrong in someone's code, as one test each.

On "cuda" every test needs a GPU; on "cpu" the same lines run with fewer sizes, so that no test
waits for a GPU to be found broken itself.
"""

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as nnf
from budget import assert_within_budget
from cases import CASES, run
from processors import PAIR_PRODUCTS, running

import fastcl.functional as F
from fastcl._library import ops
from fastcl.contrast.node import row_losses
from fastcl.contrast.problem import problem

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = pytest.mark.parametrize("device", [GPU, "cpu"])
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
# Of every loss test_losses.py asks the same of the CPU; that these lines run there is seen in
# test-all, and of those of test_gpu_quick.py always.
SELDOM = pytest.mark.parametrize("device", [GPU, pytest.param("cpu", marks=pytest.mark.slow)])

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Around the tiles of the kernels, and one size of a real batch.
ROWS = {"cuda": (1, 2, 63, 65, 127, 128, 129, 513, 2000), "cpu": (1, 65)}
WIDTHS = {"cuda": (1, 16, 100, 128, 256, 384, 640, 768, 1024, 4096), "cpu": (1, 100)}


def on(device, function):
    """A function of CPU tensors that runs on the device; gradients flow back."""

    def call(**inputs):
        moved = {k: x.to(device) if isinstance(x, torch.Tensor) else x for k, x in inputs.items()}
        return function(**moved).cpu()

    return call


def check(case, device, n, d, temperature, dtype):
    tensors, kwargs = case.arguments(max(n, case.smallest), d, temperature)
    tensors = {k: x.to(dtype).double() if x.is_floating_point() else x for k, x in tensors.items()}
    exact, exact_grads = run(case.plain, tensors, case.constants, kwargs, torch.float64)
    plain, plain_grads = run(case.plain, tensors, case.constants, kwargs, dtype)
    ours, grads = run(on(device, case.function), tensors, case.constants, kwargs, dtype)
    assert_within_budget(ours, plain, exact, dtype, "loss")
    for name, grad in grads.items():
        assert_within_budget(grad, plain_grads[name], exact_grads[name], dtype, f"d{name}")


def unit(*shape, dtype=torch.float32):
    return nnf.normalize(torch.randn(*shape, dtype=torch.float64), dim=1).to(dtype)


@SELDOM
@pytest.mark.parametrize("dtype", DTYPES)
@EVERY
def test_budget_over_rows(case, dtype, device):
    for n in ROWS[device]:
        check(case, device, n, 128, 0.1, dtype)


@SELDOM
@EVERY
def test_budget_over_widths(case, device):
    for d in WIDTHS[device]:
        check(case, device, 150 if device == "cuda" else 20, d, 0.1, torch.bfloat16)


@SELDOM
@pytest.mark.parametrize("temperature", [1.0, 0.07, 0.02, 0.01, 0.005])
@EVERY
def test_budget_over_temperatures(case, temperature, device):
    for dtype in (torch.bfloat16, torch.float32):
        check(case, device, 200 if device == "cuda" else 40, 128, temperature, dtype)


@DEVICES
@pytest.mark.parametrize("scale", [100.0, 200.0])
def test_all_logits_very_negative(scale, device):
    """Every cosine is near -1: sums under a fixed shift are zero and have to be done again."""
    q = nnf.normalize(torch.ones(70, 64) + 0.1 * torch.randn(70, 64), dim=1)
    k = nnf.normalize(-torch.ones(90, 64) + 0.1 * torch.randn(90, 64), dim=1)
    for dtype in (torch.bfloat16, torch.float32):
        x, y = (z.to(device, dtype, copy=True).requires_grad_() for z in (q, k))
        ids = torch.arange(70).to(device), torch.arange(90).to(device)
        result = row_losses(problem(x, y, scale=scale, ids=ids, normalize=False))
        result.loss.sum().backward()
        a, b = (z.to(dtype).double().requires_grad_() for z in (q, k))
        loss = nnf.cross_entropy(scale * a @ b.T, torch.arange(70), reduction="none")
        loss.sum().backward()
        torch.testing.assert_close(result.loss.cpu().double(), loss, rtol=1e-4, atol=1e-4)
        for ours, exact in ((x, a), (y, b)):
            error = (ours.grad.cpu().double() - exact.grad).norm() / exact.grad.norm()
            assert error < 4 * torch.finfo(dtype).eps + 1e-5, (scale, dtype, error)


@DEVICES
def test_duplicated_rows(device):
    """Equal rows are the positives' equals: the loss of n equal rows is log n."""
    z = unit(1, 48).expand(130, 48).to(device)
    loss = F.info_nce(z, z, temperature=0.07)
    assert loss.item() == pytest.approx(math.log(130), rel=1e-5)
    loss = F.nt_xent(z, z, temperature=0.07)
    assert loss.item() == pytest.approx(math.log(259), rel=1e-5)


@pytest.mark.parametrize("device", [GPU, *PAIR_PRODUCTS])
def test_converged_pairs_keep_their_gradient(device):
    """Positive cosine 0.9 at scale 100: the gradient is a small difference of large numbers.

    Eight rows share a direction up to cosine 0.95, or every probability would be below 1e-16 and
    float64 no judge. A kernel that multiplies in float32 may lose 2e-3 beside the one rounding of
    its result. One that multiplies bfloat16 rounds the weights of the logits once, positives
    already subtracted: it may lose a twentieth more than exact weights lose when they are rounded,
    and 1e-4. Rounded before the subtraction, the gradient is all error.
    """
    on_cpu = device in PAIR_PRODUCTS
    with running(products=device) if on_cpu else nullcontext():
        _converged("cpu" if on_cpu else device, widened=device == PAIR_PRODUCTS[0])


def _converged(device, widened):
    centre = unit(64, 256, dtype=torch.float64).repeat(8, 1)
    x = 0.95**0.5 * centre + 0.05**0.5 * unit(512, 256, dtype=torch.float64)
    x, noise = nnf.normalize(x, dim=1), unit(512, 256, dtype=torch.float64)
    rows = x, 0.9 * x + (1 - 0.81) ** 0.5 * noise
    half = [v.bfloat16().to(device).requires_grad_() for v in rows]
    F.clip(*half, 100.0, normalize=False).backward()
    exact = [v.detach().cpu().double().requires_grad_() for v in half]
    s, target = 100 * exact[0] @ exact[1].T, torch.arange(512)
    ((nnf.cross_entropy(s, target) + nnf.cross_entropy(s.T, target)) / 2).backward()
    with torch.no_grad():
        weights = (s.softmax(1) + s.softmax(0)) / 2 - torch.eye(512, dtype=torch.float64)
        late = weights.bfloat16().double()
        rounded = 100 / 512 * late @ exact[1], 100 / 512 * late.T @ exact[0]
    for ours, truth, from_rounded in zip(half, exact, rounded, strict=True):

        def off(gradient, truth=truth.grad):
            return (gradient.double().cpu() - truth).norm() / truth.norm()

        kernel = 2e-3 if widened else 1.05 * off(from_rounded) + 1e-4
        bound = (kernel**2 + off(truth.grad.bfloat16()) ** 2) ** 0.5
        assert off(ours.grad) < bound, f"relative error {off(ours.grad):.1e}, bound {bound:.1e}"


@DEVICES
def test_upstream_gradients(device):
    """reduction="none" with any weights, a scaled loss, a loss used twice, an expanded gradient."""
    q, k = (unit(67, 40).to(device).requires_grad_() for _ in range(2))
    weights = torch.randn(67, device=device)

    def gradients(total):
        losses = F.info_nce(q, k, reduction="none")
        return torch.autograd.grad(total(losses), (q, k))

    def plain(total):
        x, y = nnf.normalize(q.double(), dim=1), nnf.normalize(k.double(), dim=1)
        target = torch.arange(67, device=device)
        losses = nnf.cross_entropy(x @ y.T / 0.1, target, reduction="none")
        return torch.autograd.grad(total(losses), (q, k))

    for total in (
        lambda x: (x * weights.to(x.dtype)).sum(),
        lambda x: 1024 * x.mean(),
        lambda x: x.sum(),  # the gradient is one number, expanded
        lambda x: x.mean() + (x * x).sum(),  # used twice
    ):
        for ours, exact in zip(gradients(total), plain(total), strict=True):
            torch.testing.assert_close(ours, exact, rtol=2e-4, atol=1e-5 * exact.abs().max().item())


@SELDOM
@EVERY
def test_same_bits_twice(case, device):
    tensors, kwargs = case.arguments(1000 if device == "cuda" else 70, 128, 0.07)
    function = on(device, case.function)
    first = run(function, tensors, case.constants, kwargs, torch.bfloat16)
    second = run(function, tensors, case.constants, kwargs, torch.bfloat16)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(grad, second[1][name]) for name, grad in first[1].items())


@SELDOM
@EVERY
def test_views(case, device):
    """Transposed, strided and offset rows give the loss of their copies, kernels to the bit."""
    tensors, kwargs = case.arguments(33, 24, 0.1)

    def view_of(x, kind):
        x = x.to(device, torch.float32 if x.is_floating_point() else x.dtype)
        if x.dim() != 2 or not x.is_floating_point():
            return x
        if kind == "transposed":
            return x.T.contiguous().T
        if kind == "strided":
            return torch.stack([x, -x], 2).view(x.shape[0], -1)[:, ::2]
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x)  # off by one element

    for kind in ("transposed", "strided", "offset"):
        views = {k: view_of(x, kind) for k, x in tensors.items()}
        copies = {k: x.clone(memory_format=torch.contiguous_format) for k, x in views.items()}
        ours, expected = case.function(**views, **kwargs), case.function(**copies, **kwargs)
        same = case.fused and kind != "offset"
        torch.testing.assert_close(ours, expected, rtol=0 if same else 1e-6, atol=0)


@SELDOM
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@EVERY
def test_poisoned_rows_give_nan_and_zero_rows_do_not(case, poison, device):
    tensors, kwargs = case.arguments(70, 24, 0.1)
    name = next(k for k in tensors if k not in case.constants)
    for value in (poison, 0.0):
        tensors[name][7] = value
        moved = {
            k: x.to(device, torch.float32) if x.is_floating_point() else x.to(device)
            for k, x in tensors.items()
        }
        moved[name].requires_grad_()
        loss = case.function(**moved, **kwargs)
        assert loss.isnan() if value else loss.isfinite()
    loss.backward()
    assert moved[name].grad.isfinite().all()


@DEVICES
def test_opcheck_and_compile(device, fresh_graphs):
    q, k = (unit(40, 24, dtype=torch.bfloat16).to(device) for _ in range(2))
    ids = torch.arange(40, device=device)
    p = problem(q, k, scale=10.0, ids=ids, both=True, normalize=False)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.contrast_forward.default, (*p, None, True, True), test_utils=checks)
    torch.library.opcheck(
        ops.contrast_mean.default, (*p, True, True, False, True), test_utils=checks
    )
    queue, pointer = (
        torch.zeros(50, 24, device=device),
        torch.zeros((), dtype=torch.int64, device=device),
    )
    torch.library.opcheck(ops.queue_push_.default, (queue, pointer, q, True), test_utils=checks)
    compiled = torch.compile(F.info_nce, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k), F.info_nce(q, k))


@DEVICES
def test_gradcheck(device):
    q, k = (unit(5, 3, dtype=torch.float64).to(device).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda q, k: F.clip(q, k, 5.0), (q, k))
    assert torch.autograd.gradcheck(lambda q, k: F.nt_xent(q, k), (q, k))


@pytest.mark.gpu
def test_half_the_memory_of_one_logit_matrix():
    """Linear memory: 16,384 rows would need 1 GB for the logits alone."""
    z = torch.randn(2, 8192, 128, device="cuda", requires_grad=True)
    F.nt_xent(*z[:, :1000]).backward()  # the BLAS takes its own 34 MB once
    z.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    F.nt_xent(*z).backward()
    assert torch.cuda.max_memory_allocated() - before < 128e6


@pytest.mark.gpu
def test_siglip_in_linear_memory():
    """One chunk of weights, 134 MB: the 24,576 x 24,576 logits would take 2.4 GB."""
    image, text = (
        torch.randn(24576, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(2)
    )
    scale, bias = (torch.tensor(x, device="cuda", requires_grad=True) for x in (10.0, -10.0))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    F.siglip(image, text, scale, bias).backward()
    assert torch.cuda.max_memory_allocated() - before < 256e6
    assert all(x.grad.isfinite().all() for x in (image, text, scale, bias))


@DEVICES
@pytest.mark.slow
def test_more_than_2_31_elements(device):
    """64-bit offsets: 5,000,000 queued keys of width 512 in bfloat16; on the CPU a hundredth."""
    size = 5_000_000 if device == "cuda" else 50_000
    if device == "cuda" and torch.cuda.get_device_properties(0).total_memory < 30e9:
        pytest.skip("needs 30 GB of device memory")
    queue = torch.zeros(size, 512, device=device, dtype=torch.bfloat16)
    queue[-1, 0] = 1
    q = torch.zeros(1, 512, device=device, dtype=torch.bfloat16)
    q[0, 0] = 1
    result = row_losses(problem(q, queue, scale=20.0, own=q.clone(), normalize=False))
    expected = math.log1p((size - 1) * math.exp(-20) + 1)
    torch.testing.assert_close(result.loss.cpu().item(), expected, rtol=1e-3, atol=1e-3)
