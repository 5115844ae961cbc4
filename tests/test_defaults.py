"""Under another default dtype or device of PyTorch every function is what it was."""

import io

import pytest
import torch
from cases import ONE_OF_EACH

import fastcl
import fastcl.functional as F
from fastcl import views
from fastcl.views import Digits, Recipe, Views, decode, draw

N, D, T = 6, 5, 0.3


@pytest.fixture(params=[torch.float64, torch.bfloat16, "meta"], ids=str)
def default(request):
    """A way to call a function under it. "meta" stands for any device that the tensors are not on:
    what is made there by default holds no number."""

    def under(function):
        if isinstance(request.param, torch.dtype):
            torch.set_default_dtype(request.param)
        else:
            torch.set_default_device(request.param)
        try:
            return function()
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)

    return under


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda c: c.name)
def test_functions(case, default):
    torch.manual_seed(0)
    tensors, kwargs = case.arguments(N, D, T)
    tensors = {k: x.float() if x.is_floating_point() else x for k, x in tensors.items()}
    trained = [k for k, x in tensors.items() if x.is_floating_point() and k not in case.constants]
    for name in trained:
        tensors[name].requires_grad_()

    def run():
        loss = case.function(**tensors, **kwargs)
        return loss, *torch.autograd.grad(loss, [tensors[k] for k in trained], allow_unused=True)

    want = run()
    for ours, theirs in zip(default(run), want, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours, theirs))


def test_views(default):
    """The first call, too, whose tables are kept for later ones."""
    images, file = torch.randint(256, (3, 3, 21, 30), dtype=torch.uint8), io.BytesIO()
    pytest.importorskip("PIL.Image").fromarray(images[0].permute(1, 2, 0).numpy()).save(file, "PNG")
    recipes = [Recipe(middle=0.7, sigma=(0.1, torch.rand(()).item() + 1))]
    dino, middle, pair, digits = views.DINO(12, 9, 2), Views(8, recipes), views.SimCLR(9), Digits()
    size = torch.tensor([[9, 8], [7, 9]])

    def run():
        torch.manual_seed(1)
        rows = draw(recipes, (3, 21, 30))
        return [
            *dino(images), middle(images), pair.load([file.getvalue()]), digits(images),
            pair(decode([file.getvalue()])), rows, draw(recipes, size),
            F.random_views(images, rows, size=8, kernel=1, mean=[0.4] * 3, deviation=[1, 2, 3]),
        ]  # fmt: skip

    for ours, theirs in zip(default(run), run(), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_state(default):
    rows, network = torch.arange(12.0).view(3, 4), torch.nn.Linear(4, 2)
    twin, queue, bank = fastcl.Momentum(network), fastcl.Queue(8, 4), fastcl.Bank(5, 4)
    table, places = fastcl.AliasTable(torch.arange(1.0, 6.0)), torch.tensor([4, 0, 2])

    def run():
        queue.push(rows)
        bank.update(places, rows)
        twin.update(momentum=0.5)
        return queue.rows, bank.rows, twin(rows), table(places, 7)

    for x in default(run):
        assert x.dtype == (torch.float32 if x.is_floating_point() else torch.int64)
        assert x.device.type == "cpu" and x.isfinite().all()
