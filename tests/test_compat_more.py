"""Further contrasts of lightly and pytorch-metric-learning in fastcl.compat beside the library."""

import importlib.util

import pytest
import torch
from gloo import spawn
from hypothesis import given
from hypothesis import strategies as st
from peers import DTYPES, SHAPES, TEMPERATURES, both, budgets, peer, rows

SIZES = {k: v for k, v in SHAPES.items() if k != "n"}


@given(t=TEMPERATURES, part=st.integers(1, 9), dtype=DTYPES, **SHAPES)
def test_direct_clr(n, d, seed, t, part, dtype):
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    budgets(*(m.DirectCLRLoss(part, t) for m in (ours, theirs)), rows(n, d, dtype, "out0", "out1"))
    banks = [m.DirectCLRLoss(part, t, (7, min(part, d))) for m in (ours, theirs)]
    assert isinstance(banks[0], ours.NTXentLoss) and banks[0].memory_bank.size == (7, min(part, d))


@given(t=st.floats(0.05, 2), small=st.floats(0.02, 1), views=st.tuples(st.integers(1, 3),
       st.integers(2, 3)), trained=st.booleans(), dtype=DTYPES, **SHAPES)  # fmt: skip
def test_dino(n, d, seed, t, small, views, trained, dtype):
    """A teacher with a gradient and one without, with fewer views and more; the center's way."""
    torch.manual_seed(seed)
    teacher = {f"t{v}": torch.randn(n, d, dtype=dtype) for v in range(views[0])}
    student = {f"s{v}": torch.randn(n, d, dtype=dtype) for v in range(views[1])}
    epoch = seed % 4  # of 3 while the temperature moves
    forms, losses = [], []
    for module in both("lightly"):
        loss = module.DINOLoss(d, 2 * small, small, 3, t, 0.7)
        loss([x.float() for x in teacher.values()], [x.float() for x in student.values()])
        losses.append(loss)

        def form(loss=loss, **x):
            kept = loss.center.clone()
            dtype = next(iter(x.values())).dtype
            parts = {k: v.to(dtype) for k, v in {**teacher, **x}.items()}
            found = loss([parts[k] for k in teacher], [parts[k] for k in student], epoch=epoch)
            loss.center.data = kept
            return found

        forms.append(form)
    torch.testing.assert_close(losses[0].state_dict(), losses[1].state_dict())
    budgets(*forms, teacher | student if trained else student, logit=4 / small)


def test_dino_errors():
    for module in both("lightly"):
        with pytest.raises(ValueError, match="requires at least two views in total"):
            module.DINOLoss(3)([torch.randn(2, 3)], [torch.randn(2, 3)])
        with pytest.raises(ValueError, match="Unknown mode 'max'"):
            module.DINOLoss(3, center_mode="max")


@given(t=st.floats(0.5, 2), alpha=st.floats(0, 0.5), start=st.floats(0, 0.5), dtype=DTYPES,
       **SHAPES)  # fmt: skip
def test_macl(n, d, seed, t, alpha, start, dtype):
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    losses = (m.MACLLoss(t, alpha, start) for m in (ours, theirs))
    budgets(*losses, rows(n, d, dtype, "z0", "z1"), logit=4 / t)


def test_macl_of_decided_rows():
    """The weight divides by what is left of the positive's share: it keeps its digits."""
    ours, theirs = both("lightly")
    a = torch.eye(6, dtype=torch.float64)[:4]
    b = a + 0.1 * torch.randn(4, 6, dtype=torch.float64)
    results = []
    for module, dtype in ((ours, torch.float32), (theirs, torch.float64)):
        inputs = [x.to(dtype).requires_grad_() for x in (a, b)]
        loss = module.MACLLoss(0.05)(*inputs)
        results.append([x.double() for x in (loss.detach(), *torch.autograd.grad(loss, inputs))])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@given(t=st.floats(0.1, 20), lam=st.floats(-1, 3), alpha=st.floats(1, 3), dtype=DTYPES, **SHAPES)
def test_hypersphere(n, d, seed, t, lam, alpha, dtype):
    torch.manual_seed(seed)
    modules = (
        importlib.import_module("fastcl.compat.lightly"),
        peer("lightly.loss.hypersphere_loss"),
    )
    losses = [m.HypersphereLoss(t, lam, alpha) for m in modules]
    budgets(*losses, rows(n, d, dtype, "z_a", "z_b"), logit=4 * t)


@pytest.mark.parametrize(("n", "t"), [(1, 1.0), (5, 0.0), (5, -2.0)])
def test_hypersphere_beside_the_kernel(n, t):
    """One row, and rows that attract each other: what lightly makes of them."""
    modules = (
        importlib.import_module("fastcl.compat.lightly"),
        peer("lightly.loss.hypersphere_loss"),
    )
    pair = rows(n, 4, torch.float64, "z_a", "z_b").values()
    torch.testing.assert_close(*(m.HypersphereLoss(t)(*pair) for m in modules), equal_nan=True)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"alpha": 1.5}, {"A_0": -0.1}])
def test_macl_errors(options):
    messages = []
    for module in both("lightly"):
        with pytest.raises(ValueError) as error:
            module.MACLLoss(**options)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def regions(b, m, masks):
    """Masks of two views: some regions twice in an image, some in one view alone."""
    return [torch.randint(-2, masks, (b, m)) for _ in "01"]


@given(b=st.integers(1, 4), m=st.integers(1, 4), masks=st.integers(-1, 4), t=st.floats(0.05, 2),
       **SIZES)  # fmt: skip
def test_det_con(b, m, masks, d, seed, t):
    """In float32, in which lightly has its weights whatever the rows are."""
    ours, theirs = both("lightly")
    torch.manual_seed(seed)
    given_masks = regions(b, m, masks)
    flat = rows(b * m, d, torch.float32, "a", "b", "c", "e")
    tensors = {k: x.view(b, m, d) for k, x in flat.items()}
    for name, count in (("DetConSLoss", 2), ("DetConBLoss", 4)):
        losses = [getattr(x, name)(t, gather_distributed=False) for x in (ours, theirs)]
        forms = (lambda f=f, **x: f(*x.values(), *given_masks) for f in losses)
        budgets(*forms, dict(list(tensors.items())[:count]), logit=2 / t)
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="Illegal temperature"):
            module.DetConSLoss(0.0)


def _check_ranks(rank: int) -> None:
    results = []
    for module in both("lightly"):
        torch.manual_seed(0)
        views = torch.randn(2, 2, 3, 2, 5, dtype=torch.float64)[rank]  # views, images, regions
        masks = torch.randint(0, 2, (2, 2, 3, 2))[rank]
        inputs = [x.clone().requires_grad_() for x in views]
        loss = module.DetConSLoss()(*inputs, *masks)
        results.append((loss.detach(), *torch.autograd.grad(loss, inputs)))
    torch.testing.assert_close(*results)
    results = []
    for module in both("lightly"):
        inputs = [x.flatten(0, 1).clone().requires_grad_() for x in views]
        loss = module.VICRegLoss(gather_distributed=True)(*inputs)
        results.append((loss.detach(), *torch.autograd.grad(loss, inputs)))
    torch.testing.assert_close(*results)


def test_two_ranks(tmp_path):
    if not importlib.util.find_spec("lightly"):
        pytest.skip("lightly is not installed: make test-peers")
    spawn(_check_ranks, 2, tmp_path)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@given(weights=st.tuples(*[st.floats(0, 30)] * 3), dtype=DTYPES, **SHAPES)
def test_vicreg(shape, weights, dtype, n, d, seed):
    """Fewer rows than features and more, places between them as in VICRegL."""
    torch.manual_seed(seed)
    tensors = {k: torch.randn(n, *shape, d, dtype=dtype) for k in ("z_a", "z_b")}
    budgets(*(m.VICRegLoss(*weights, eps=1e-3) for m in both("lightly")), tensors)
    if not shape:
        pair = dict(zip(("z1", "z2"), tensors.values(), strict=True))
        forms = (lambda z1, z2, f=m.vicreg_loss_func: f(z1, z2, *weights) for m in both("solo"))
        budgets(*forms, pair)


def test_vicreg_errors():
    for module in both("lightly"):
        for shapes in (((1, 3), (1, 3)), ((4, 3), (4, 2))):
            with pytest.raises(AssertionError, match="z_a and z_b must have"):
                module.VICRegLoss()(*(torch.randn(s) for s in shapes))
    pair = torch.randn(4, 3), torch.randn(4, 3).double()
    torch.testing.assert_close(*(m.VICRegLoss()(*pair) for m in both("lightly")))


METRIC = {
    "MultiSimilarityLoss": st.fixed_dictionaries(
        {"alpha": st.floats(0.5, 5), "beta": st.floats(1, 50), "base": st.floats(-0.5, 1)}
    ),
    "TupletMarginLoss": st.fixed_dictionaries(
        {"margin": st.floats(0, 20), "scale": st.floats(1, 64)}
    ),
}


@pytest.mark.parametrize("name", METRIC)
@pytest.mark.parametrize("form", ["labels", "reference", "pairs"])
@given(data=st.data(), classes=st.integers(1, 6), **SHAPES)
def test_metric(name, form, data, n, d, seed, classes):
    ours, theirs = both("pytorch_metric_learning")
    utils = peer("pytorch_metric_learning.utils.loss_and_miner_utils")
    options = data.draw(METRIC[name])
    torch.manual_seed(seed)
    labels, extra = torch.randint(0, classes, (n,)), {}
    tensors = rows(n, d, torch.float64, "embeddings")
    if form == "reference":
        tensors |= rows(n, d, torch.float64, "ref_emb")
        extra["ref_labels"] = torch.randint(0, classes, (n,))
    elif form == "pairs":
        extra["indices_tuple"] = tuple(x[::2] for x in utils.get_all_pairs_indices(labels))
    losses = [getattr(m, name)(**options) for m in (ours, theirs)]
    calls = (lambda f=f, **x: f(labels=labels, **x, **extra) for f in losses)
    budgets(*calls, tensors, logit=options.get("beta", options.get("scale")))


@pytest.mark.parametrize("name", METRIC)
def test_metric_forms_no_matrix(name, monkeypatch):
    """Nor does it list the negatives; what needs them takes the library's way."""
    ours, theirs = both("pytorch_metric_learning")
    utils = peer("pytorch_metric_learning.utils.loss_and_miner_utils")
    reducers = peer("pytorch_metric_learning.reducers")
    x, labels = rows(12, 5, torch.float64, "x")["x"], torch.arange(12) // 3
    for more in ({"reducer": reducers.ThresholdReducer(low=0.5)}, {"collect_stats": True}):
        torch.testing.assert_close(*(getattr(m, name)(**more)(x, labels) for m in (ours, theirs)))
    loss = getattr(ours, name)()
    monkeypatch.setattr(utils, "convert_to_pairs", None)
    loss(x, labels)
    with pytest.raises(TypeError):
        getattr(theirs, name)()(x, labels)


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss", "MultiSimilarityLoss"])
@pytest.mark.parametrize("other", [lambda x: x.clone(), lambda x: x.flip(0)])
def test_the_same_rows_as_references_with_labels_of_their_own(name, other):
    torch.manual_seed(0)
    labels, results = torch.arange(8) // 3, []
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    for module in both("pytorch_metric_learning"):
        loss = getattr(module, name)()(x, labels, ref_emb=x, ref_labels=other(labels))
        results.append((loss.detach(), *torch.autograd.grad(loss, x)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_of_regions(dtype):
    masks, views = torch.arange(12).view(3, 4) % 3, torch.randn(2, 3, 4, 8, dtype=dtype)
    losses = [
        m.DetConSLoss(gather_distributed=False)(*views, masks, masks) for m in both("lightly")
    ]
    torch.testing.assert_close(*losses, rtol=2e-2, atol=2e-2)
