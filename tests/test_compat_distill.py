"""open_clip's loss with a teacher: its formula, the library itself, memory, what users replace."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import DTYPES, SHAPES, both, budgets, rows
from torch.autograd import forward_ad

from fastcl.compat import _open_clip_both as square
from fastcl.compat import _open_clip_distill as distill
from fastcl.compat.open_clip import DistillClipLoss

NAMES = "image_features", "text_features", "dist_image_features", "dist_text_features"


def problem(n, d, dtype, scale=4.0, taught=3.0):
    tensors = rows(n, d, dtype, *NAMES[:2]) | rows(n, d + 2, dtype, *NAMES[2:])
    tensors["logit_scale"] = torch.tensor(scale, dtype=dtype)
    return tensors | {"dist_logit_scale": torch.tensor(taught, dtype=dtype)}


def plain(
    image_features, text_features, logit_scale,
    dist_image_features, dist_text_features, dist_logit_scale,
):  # fmt: skip
    s = logit_scale * image_features @ text_features.T
    t = dist_logit_scale * dist_image_features @ dist_text_features.T
    labels = torch.arange(len(s))
    halves = (s, t), (s.T, t.T)
    contrast = sum(F.cross_entropy(s, labels) for s, _ in halves) / 2
    return contrast, sum(F.cross_entropy(s, t.softmax(1)) for s, t in halves) / 2


def part(loss, index):
    return lambda **tensors: loss(**tensors)[index]


@pytest.mark.parametrize("block", [1, 21, 22, 10_000])
@pytest.mark.parametrize("part_of", [0, 1])
def test_it_is_its_formula(monkeypatch, block, part_of):
    monkeypatch.setattr(distill, "BLOCK", block)
    tensors = problem(7, 3, torch.float64)
    budgets(part(DistillClipLoss(), part_of), part(plain, part_of), tensors, 16)


@given(scale=st.floats(-5, 10), taught=st.floats(-5, 10), dtype=DTYPES, **SHAPES)
@settings(max_examples=10)
def test_it_is_the_librarys(n, d, seed, scale, taught, dtype):
    ours, theirs = both("open_clip")
    torch.manual_seed(seed)
    tensors = problem(n, d, dtype, scale, taught)
    for i in (0, 1):
        losses = [part(m.DistillClipLoss(), i) for m in (ours, theirs)]
        budgets(*losses, tensors, 4 * max(1, abs(scale), abs(taught)))


def constant(loss, index, tensors):
    """Of the student's tensors alone: the teacher's have no gradient."""
    taught = {k: v for k, v in tensors.items() if k.startswith("dist_")}

    def function(**own):
        dtype = own["image_features"].dtype
        return loss(**own, **{k: v.to(dtype) for k, v in taught.items()})[index]

    return function, {k: v for k, v in tensors.items() if k not in taught}


@pytest.mark.parametrize("block", [1, 21, 22, 10_000])
@pytest.mark.parametrize("part_of", [0, 1])
def test_a_constant_teacher_is_its_formula(monkeypatch, block, part_of):
    monkeypatch.setattr(square, "BLOCK", block)
    monkeypatch.setattr(distill, "soft_contrast", None)  # the other way is not taken
    tensors = problem(7, 3, torch.float64)
    ours, own = constant(DistillClipLoss(), part_of, tensors)
    budgets(ours, constant(plain, part_of, tensors)[0], own, 16)


@given(scale=st.floats(-5, 100), taught=st.floats(-5, 100), dtype=DTYPES, **SHAPES)
def test_a_constant_teacher_in_the_library(n, d, seed, scale, taught, dtype):
    """Both losses, summed with weights of their own."""
    torch.manual_seed(seed)
    tensors = problem(n, d, dtype, scale, taught)
    forms = []
    for module in both("open_clip"):
        (first, own), (second, _) = (constant(module.DistillClipLoss(), i, tensors) for i in (0, 1))
        forms.append(lambda f=first, g=second, **x: 0.7 * f(**x) - 1.3 * g(**x))
    budgets(*forms, own, 4 * max(1, abs(scale), abs(taught)))


def test_one_backward_for_both_losses_and_no_second_derivative():
    tensors = problem(6, 4, torch.float64)
    results = []
    for function in (DistillClipLoss(), plain):
        own = {k: tensors[k].clone().requires_grad_() for k in NAMES[:2]}
        a, b = function(**tensors | own)
        results.append(torch.autograd.grad(2 * a - b, list(own.values())))
    torch.testing.assert_close(*results)
    own = {k: tensors[k].clone().requires_grad_() for k in NAMES[:2]}
    loss = DistillClipLoss()(**tensors | own)[1]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, own["image_features"], create_graph=True)


def test_transforms_are_refused_and_what_has_no_memory_is_not():
    x, loss = torch.randn(4, 3), DistillClipLoss()

    def function(a):
        return sum(loss(a, x, 2.0, x, x, 2.0))

    with pytest.raises(RuntimeError, match="torch.func transforms .* do not reach"):
        torch.func.grad(function)(x)
    with pytest.raises(RuntimeError, match="no forward-mode derivative"), forward_ad.dual_level():
        function(forward_ad.make_dual(x, x))
    x = x.to("meta")
    assert function(x).device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_the_librarys_in_16_bits(dtype):
    ours, theirs = both("open_clip")
    for i in (0, 1):
        losses = [part(m.DistillClipLoss(), i) for m in (ours, theirs)]
        budgets(*losses, problem(8, 5, dtype), 16)


def test_forms_of_the_result():
    ours, theirs = both("open_clip")
    tensors = problem(5, 4, torch.float32)
    own = torch.rand(5, 1) + 1  # a scale for every row
    for more in ({}, {"logit_scale": 2.5, "dist_logit_scale": 3}, {"logit_scale": own}):
        losses = [m.DistillClipLoss() for m in (ours, theirs)]
        found = [f(**tensors | more, output_dict=True) for f in losses]
        assert list(found[0]) == ["contrastive_loss", "distill_loss"] == list(found[1])
        torch.testing.assert_close(*found)
        torch.testing.assert_close(*(f(**tensors | more) for f in losses))
        assert isinstance(losses[0](**tensors), tuple)


class Halved:
    def get_logits(self, *args):
        return [x / 2 for x in super().get_logits(*args)]


class Squared:
    def dist_loss(self, teacher_logits, student_logits):
        return (teacher_logits - student_logits).square().mean()


@pytest.mark.parametrize("own", [Halved, Squared])
def test_what_a_subclass_replaces_is_called(own):
    ours, theirs = both("open_clip")
    tensors = problem(5, 4, torch.float64)
    losses = [type("Own", (own, m.DistillClipLoss), {})() for m in (ours, theirs)]
    torch.testing.assert_close(*(f(**tensors) for f in losses))


class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """The most elements that an operation returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.numel())
        return result


@pytest.mark.parametrize("constant", [False, True])
def test_no_matrix_is_formed_and_nothing_of_a_block_is_kept(monkeypatch, constant):
    for module in (distill, square):
        monkeypatch.setattr(module, "BLOCK", 1024)
    n, d = 256, 8
    features = [x.requires_grad_() for x in rows(n, d, torch.float32, *NAMES).values()]
    if constant:
        features[2:] = [x.detach() for x in features[2:]]
    kept = []
    with (
        Sizes() as sizes,
        torch.autograd.graph.saved_tensors_hooks(
            lambda x: kept.append(x.numel()) or x, lambda x: x
        ),
    ):
        sum(DistillClipLoss()(*features[:2], 10.0, *features[2:], 10.0)).backward()
    assert 1024 <= sizes.largest < n * n / 8
    assert kept and max(kept) <= n * d
