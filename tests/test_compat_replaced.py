"""Whatever a user replaces, in a subclass, on the class or on the instance, is called."""

from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from peers import both, peer
from peers import rows as peer_rows
from test_compat_plain import clip, nt_xent, rows, siglip
from torch import nn

from fastcl.compat import lightly, open_clip

TRUTH = torch.arange(8) // 2


def grouped(self, device, dtype, num_logits, negative_only=False):
    truth = (TRUTH[:, None] == TRUTH).to(dtype)
    return -torch.ones_like(truth) if negative_only else 2 * truth - 1


def halved(self, images, texts, scale, bias=None):
    return scale * images @ texts.T / 2 + (0 if bias is None else bias)


def same(ours, plain, inputs):
    inputs = [x.requires_grad_() for x in inputs]
    results = [(f(*inputs), *torch.autograd.grad(f(*inputs), inputs)) for f in (ours, plain)]
    torch.testing.assert_close(*results)


def in_three_ways(make, base, **methods):
    """A loss whose methods a subclass, or the instance, replaces, by functions or bound methods."""
    yield type("Own", (base,), methods)()
    for bind in (MethodType, lambda f, loss: lambda *args, **kw: f(loss, *args, **kw)):
        loss = make()
        for name, method in methods.items():
            setattr(loss, name, bind(method, loss))
        yield loss


def test_siglip_of_another_truth():
    """The value of open_clip at seed 0, scale 10 and bias -10."""
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(8, 16), dim=1) for _ in "ab")
    for loss in in_three_ways(open_clip.SigLipLoss, open_clip.SigLipLoss, get_ground_truth=grouped):
        sign = grouped(None, None, torch.float32, 8)

        def plain(a, b, sign=sign):
            return -F.logsigmoid(sign * (10 * a @ b.T - 10)).sum() / 8

        same(lambda a, b, f=loss: f(a, b, 10.0, -10.0), plain, (a, b))


def test_siglip_of_other_logits():
    a, b = rows(8, 5, "a", "b").values()
    scale, bias = (torch.tensor(x, dtype=torch.float64) for x in (4.0, -2.0))
    for loss in in_three_ways(open_clip.SigLipLoss, open_clip.SigLipLoss, get_logits=halved):
        same(loss, lambda a, b, s, c: siglip(a, b, s / 2, c), (a, b, scale, bias))


def test_clip_of_other_logits_or_another_truth():
    a, b = rows(8, 5, "a", "b").values()
    scale = torch.tensor(4.0, dtype=torch.float64)

    def logits(self, images, texts, scale, logit_bias=None):
        s = scale * images @ texts.T / 2
        return s, s.T

    for loss in in_three_ways(open_clip.ClipLoss, open_clip.ClipLoss, get_logits=logits):
        same(loss, lambda a, b, s: clip(a, b, s / 2, 0), (a, b, scale))

    def turned(self, device, num_logits):
        return torch.arange(num_logits).roll(1)

    def plain(a, b, s):
        logits, labels = s * a @ b.T, torch.arange(8).roll(1)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    for loss in in_three_ways(open_clip.ClipLoss, open_clip.ClipLoss, get_ground_truth=turned):
        same(loss, plain, (a, b, scale))


def test_a_method_of_the_class(monkeypatch):
    a, b = rows(8, 5, "a", "b").values()
    monkeypatch.setattr(open_clip.SigLipLoss, "get_logits", halved)
    same(
        lambda a, b: open_clip.SigLipLoss()(a, b, 4.0, -2.0),
        lambda a, b: siglip(a, b, 2.0, -2.0),
        (a, b),
    )


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 0.1}, {"reduction": "sum"}, {"weight": torch.rand(15).double()}]
)
def test_another_cross_entropy_of_nt_xent(options):
    a, b = rows(8, 5, "a", "b").values()
    loss = lightly.NTXentLoss()
    loss.cross_entropy = nn.CrossEntropyLoss(**options)

    def plain(a, b):
        za, zb = F.normalize(a, dim=1), F.normalize(b, dim=1)
        off = ~torch.eye(8, dtype=torch.bool)
        halves = [
            torch.cat([x @ y.T, (x @ x.T)[off].view(8, 7)], 1) for x, y in ((za, zb), (zb, za))
        ]
        labels = torch.arange(8).repeat(2)
        return F.cross_entropy(torch.cat(halves) / 0.5, labels, **options)

    same(loss, plain, (a, b))


def test_a_cross_entropy_that_is_watched():
    a, b = rows(8, 5, "a", "b").values()
    loss, seen = lightly.NTXentLoss(), []
    loss.cross_entropy.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    torch.testing.assert_close(loss(a, b), nt_xent(a, b))
    assert seen[0].shape == (16, 15)


def test_another_cross_entropy_beside_a_bank():
    a, b = (x.float() for x in rows(4, 5, "a", "b").values())
    loss = lightly.NTXentLoss(memory_bank_size=(7, 5))
    loss.cross_entropy = nn.CrossEntropyLoss(label_smoothing=0.1)
    bank = loss.memory_bank.bank.clone()

    def plain(a, b):
        q, k = F.normalize(a, dim=1), F.normalize(b, dim=1)
        s = torch.cat([(q * k).sum(1, keepdim=True), q @ bank.T], 1) / 0.5
        return F.cross_entropy(s, torch.zeros(4, dtype=torch.long), label_smoothing=0.1)

    a, b = a.requires_grad_(), b.requires_grad_()
    torch.testing.assert_close(loss(a, b), plain(a, b))
    torch.testing.assert_close(loss.memory_bank.bank[:4], F.normalize(b, dim=1).detach())


@pytest.mark.parametrize("base", [lightly.DCLLoss, lightly.DCLWLoss])
def test_another_part_of_dcl(base):
    a, b = rows(8, 5, "a", "b").values()

    def part(self, out0, out1, out0_all, out1_all):
        return (out0 * out1_all).sum() * self.temperature

    def plain(a, b):
        return 0.1 * (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum()

    for loss in in_three_ways(base, base, _loss=part):
        same(loss, plain, (a, b))


def test_the_part_of_dcl_is_there_for_subclasses():
    class Doubled(lightly.DCLLoss):
        def _loss(self, *args):
            return 2 * super()._loss(*args)

    a, b = rows(8, 5, "a", "b").values()
    same(Doubled(0.3), lambda a, b: 2 * nt_xent(a, b, 0.3, True), (a, b))


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss"])
@pytest.mark.parametrize(
    "how", ["pair_based_loss", "mat_based_loss", "_compute_loss", "loss_method"]
)
@pytest.mark.parametrize("memory", [False, True])
def test_pytorch_metric_learning(name, how, memory):
    """By a subclass and on the instance, beside the library, and under its memory."""
    ours, theirs = both("pytorch_metric_learning")
    x, labels = peer_rows(8, 5, torch.float64, "x")["x"], TRUTH
    calls = []

    def method(original, mat, *indices):
        calls.append(len(mat) if torch.is_tensor(mat) else 0)
        found = original(mat, *indices)
        found["loss"]["losses"] = found["loss"]["losses"] * 2
        return found

    def make(module, subclass):
        base = getattr(module, name)
        if subclass and how != "loss_method":
            original = getattr(base, how)
            own = {how: lambda self, *args: method(original.__get__(self), *args)}
            return type(name, (base,), own)()
        loss = base()
        original, held = getattr(loss, how), loss.loss_method == getattr(loss, how)
        setattr(loss, how, lambda *args: method(original, *args))
        if held:  # the library calls it by that name
            loss.loss_method = getattr(loss, how)
        return loss

    for subclass in (True, False):
        values = []
        for module in (ours, theirs):
            loss = make(module, subclass)
            if memory:
                loss = module.CrossBatchMemory(loss, 5, 16)
            values.append(loss(x, labels))
        torch.testing.assert_close(*values)
    used = name == "NTXentLoss", name == "SupConLoss"
    expected = {"pair_based_loss": used[0], "mat_based_loss": used[1]}.get(how, True)
    assert bool(calls) or not expected


def test_pytorch_metric_learning_of_another_method_of_its_own():
    """loss_method may be any method, the library's other one too."""
    ours, theirs = both("pytorch_metric_learning")
    x, labels = peer_rows(8, 5, torch.float64, "x")["x"], TRUTH
    values = []
    for module in (ours, theirs):
        loss = module.SupConLoss()
        loss.mat_based_loss = lambda mat, indices, f=loss: {
            **f.zero_losses(),
            "loss": {"losses": mat.sum(), "indices": None, "reduction_type": "already_reduced"},
        }
        loss.loss_method = loss.mat_based_loss
        values.append(loss(x, labels))
    torch.testing.assert_close(*values)


def test_pytorch_metric_learning_of_another_distance():
    ours, theirs = both("pytorch_metric_learning")
    x = peer_rows(8, 5, torch.float64, "x")["x"]
    for name in ("NTXentLoss", "SupConLoss"):
        values = []
        for module in (ours, theirs):
            loss = getattr(module, name)()
            loss.distance.compute_mat = lambda a, b: (a @ b.T).tanh()
            values.append(loss(x, TRUTH))
        torch.testing.assert_close(*values)


def test_a_similarity_of_ones_own():
    ours, theirs = both("sentence_transformers")
    cos_sim = peer("sentence_transformers.util").cos_sim
    a, b = peer_rows(6, 5, torch.float64, "a", "b").values()
    model, values = nn.Sequential(nn.Identity()), []
    for module in (ours, theirs):
        for name in ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"):
            loss = getattr(module, name)(model)
            loss.similarity_fct = lambda a, b: cos_sim(a, b).tanh()
            if name.startswith("Cached"):
                values.append(loss.calculate_loss([[a], [b]]))
            else:
                values.append(loss.compute_loss_from_embeddings([a, b], None))
    torch.testing.assert_close(values[:2], values[2:])
