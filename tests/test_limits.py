"""Weights, limits and guides of the operators in every instruction set, against the reference.

Who is left out is decided by a comparison: limits lie in gaps between the similarities, where no
rounding decides.
"""

import pytest
import torch
from budget import assert_within_budget
from processors import built

from fastcl import reference
from fastcl.contrast.node import mean_loss, row_losses
from fastcl.contrast.problem import problem
from fastcl.functional import unit_rows

pytestmark = [built, pytest.mark.instruction_sets]

# Around tiles of 240 rows and the largest single tile of 256; vectors have 4, 8 or 16 lanes.
SIZES = [(1, 1), (7, 17), (239, 242), (240, 241), (241, 240), (242, 239), (255, 258), (256, 257),
         (257, 256), (258, 255)]  # fmt: skip
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# In 16 bits, which only reading tells apart, every border from one side.
WHOLE = torch.float64, torch.float32
FORMS = ("own", "own and ids", "diagonal", "ids")
NAMES = "q", "k", "own"


def _gaps(judge):
    """A limit per row [n] in the widest gap of its middle half; some rows are left with all
    columns, some with none."""
    ordered = judge.sort(1).values
    m = judge.shape[1]
    inner = ordered[:, m // 4 : max(m // 4 + 2, 3 * m // 4)]
    if inner.shape[1] < 2:
        limit = inner[:, 0] - 0.1
    else:
        at = inner.diff(dim=1).argmax(1, keepdim=True)
        limit = (inner.gather(1, at) + inner.gather(1, at + 1)).squeeze(1) / 2
    rows = torch.arange(len(judge))
    return torch.where(rows % 5 == 3, -2.0, torch.where(rows % 5 == 4, 2.0, limit))


def drawn(n, m, form, guide_dtype, dtype, d=24, g=7):
    """Float64 tensors that dtype holds, and the options of the problem."""

    def make(size, width, dtype):
        return unit_rows(torch.randn(size, width, dtype=torch.float64)).to(dtype).double()

    m = n if form == "diagonal" else m
    tensors = {"q": make(n, d, dtype), "k": make(m, d, dtype)}
    options = {"row_weight": torch.rand(n).double() * (torch.arange(n) % 4 > 0)}
    if form.startswith("own"):
        tensors["own"] = make(n, d, dtype)
    if form == "diagonal":
        options["diagonal"] = True
    elif form != "own":
        options["ids"] = torch.randint(0, 9, (n,)), torch.randint(0, 12, (m,))
        options["paired"] = False
    judge = tensors["q"] @ tensors["k"].T
    if guide_dtype is not None:
        guide = [make(size, g, guide_dtype) for size in (n, m)]
        judge = unit_rows(guide[0]) @ unit_rows(guide[1]).T
        options["guide"] = tuple(x.to(guide_dtype) for x in guide)
    return tensors, options | {"limit": _gaps(judge)}


def _on(device, x):
    """A tensor, or a pair of them, on the device."""
    if isinstance(x, tuple):
        return tuple(y.to(device) for y in x)
    return x.to(device) if isinstance(x, torch.Tensor) else x


def posed(tensors, options, dtype, device="cpu", trained=NAMES):
    moved = {name: x.detach().to(device, dtype) for name, x in tensors.items()}
    inputs = {name: x.requires_grad_(name in trained) for name, x in moved.items()}
    options = {name: _on(device, x) for name, x in options.items()}
    if dtype == torch.float64 and "guide" in options:
        options["guide"] = tuple(x.double() for x in options["guide"])
    return inputs, problem(**inputs, scale=9.0, normalize=False, **options)


def by_reference(tensors, options, dtype, upstream):
    """The mean and the losses of the rows, and their gradients, of the operators in PyTorch."""
    inputs, p = posed(tensors, options, dtype)
    with torch.no_grad():
        needs = True, True, "own" in tensors or p.own is not None, False
        loss, _, *grads, _ = reference.contrast_mean(p, *needs)
        rows, cols, _, weighted = reference.contrast_forward(p, None, True, True)
        some = (rows[3] > 0).to(rows.dtype)
        upstream = upstream.to(rows.dtype) * some
        *more, _ = reference.contrast_backward(
            p, rows, cols, weighted, upstream, None, None, None, *needs
        )
    own = p.row_ids is not None and p.own is not None and "own" not in tensors
    assert not own  # a diagonal whose columns have gradients is one by ids
    n = len(tensors["q"])
    grads, more = ([x.double() for x in found[: len(inputs)]] for found in (grads, more))
    losses = torch.where(rows[3] > 0, rows[0], 0)
    return loss.double(), losses.double(), [n * x for x in grads], more


def by_operators(tensors, options, dtype, upstream, device="cpu", trained=NAMES):
    def gradients(loss, inputs):
        found = torch.autograd.grad(loss, [x for x in inputs.values() if x.requires_grad])
        return [x.double().cpu() for x in found]

    inputs, p = posed(tensors, options, dtype, device, trained)
    loss, _ = mean_loss(p)
    grads = gradients(loss * len(tensors["q"]), inputs)
    inputs, p = posed(tensors, options, dtype, device, trained)
    found = row_losses(p)
    losses = torch.where(found.count > 0, found.loss, 0)
    more = gradients((losses * upstream.to(losses)).sum(), inputs)
    return loss.detach().double().cpu(), losses.detach().double().cpu(), grads, more


@pytest.mark.parametrize("guide_dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_guides_and_weights(dtype, form, guide_dtype):
    for n, m in SIZES if dtype in WHOLE else SIZES[:2] + SIZES[2::2]:
        tensors, options = drawn(n, m, form, guide_dtype, dtype)
        upstream = torch.randn(n, dtype=torch.float64)
        exact = by_reference(tensors, options, torch.float64, upstream)
        ours = by_operators(tensors, options, dtype, upstream)
        if dtype == torch.float64:
            torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-10, msg=f"{n} x {m}")
            continue
        plain = by_reference(tensors, options, dtype, upstream)
        assert_within_budget(ours[0], plain[0], exact[0], torch.float32, f"{n} x {m}: mean")
        assert_within_budget(ours[1], plain[1], exact[1], torch.float32, f"{n} x {m}: rows")
        for which in (2, 3):
            for name, *x in zip(NAMES, ours[which], plain[which], exact[which], strict=False):
                assert_within_budget(*x, dtype, f"{n} x {m}: d{name} of {which}")


@pytest.mark.any_set
def test_what_is_left_out_has_no_gradient():
    """A negative control: without the limit it has one."""
    tensors, options = drawn(30, 40, "own", None, torch.float64)
    for limit, zero in ((-2.0, True), (2.0, False)):
        inputs, p = posed(tensors, options | {"limit": torch.full((30,), limit)}, torch.float64)
        mean_loss(p)[0].backward()
        assert (inputs["k"].grad == 0).all() == zero
        assert (inputs["q"].grad == 0).all() == zero
