"""What PyTorch does with a whole loss: torch.export, torch.func, compilation under autocast."""

import io

import pytest
import torch
from cases import CASES, ONE_OF_EACH, run
from torch import nn

import fastcl.functional as F
from fastcl import losses, methods

REFUSED = "torch.func transforms .* do not reach"


class Trained(nn.Module):
    """A backbone and a loss of two views, as one would write them."""

    def __init__(self, loss):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.loss = loss

    def forward(self, view1, view2):
        return self.loss(self.backbone(view1), self.backbone(view2))


class Scaled(nn.Module):
    """A loss of two modalities and the scalars it learns."""

    def __init__(self, loss, *scalars):
        super().__init__()
        self.loss = loss
        self.scalars = nn.ParameterList([torch.tensor(x) for x in scalars])

    def forward(self, a, b):
        return self.loss(a, b, *self.scalars)


def method(name, **sizes):
    backbone = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU())
    return getattr(methods, name)(backbone, width=5, **sizes)


EXPORTED = {
    "nt_xent": lambda: Trained(losses.NTXentLoss()),
    "info_nce": lambda: Trained(losses.InfoNCELoss()),
    "dclw": lambda: Trained(losses.DCLWLoss()),
    "barlow_twins": lambda: Trained(losses.BarlowTwinsLoss()),
    "clip": lambda: Trained(Scaled(losses.CLIPLoss(), 10.0)),
    "siglip": lambda: Trained(Scaled(losses.SigLIPLoss(), 10.0, -10.0)),
    "SimCLR": lambda: method("SimCLR", dim=4),
    "MoCo": lambda: method("MoCo", dim=4, queue_size=16),
    "BYOL": lambda: method("BYOL", dim=4, hidden=7),
    "SimSiam": lambda: method("SimSiam", dim=4, hidden=7),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_program_has_the_same_value(name):
    views = torch.randn(2, 8, 6).unbind()
    module = EXPORTED[name]().eval()
    program = torch.export.export(module, views)
    for again in (views, torch.randn(2, 8, 6).unbind()):
        assert torch.equal(program.module()(*again), module(*again))


def test_an_exported_loss_takes_any_number_of_rows_and_survives_a_file():
    module = Trained(losses.NTXentLoss()).eval()
    rows = {0: torch.export.Dim("n", min=2)}
    views = torch.randn(2, 8, 6).unbind()
    program = torch.export.export(module, views, dynamic_shapes=(rows, rows))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for n in (2, 8, 33):
        views = torch.randn(2, n, 6).unbind()
        torch.testing.assert_close(loaded(*views), module(*views))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_torch_func_works_or_says_what_to_do(case):
    """Plain arithmetic passes the transforms; operators refuse them with a way out."""
    tensors, kwargs = case.arguments(6, 4, 0.5)
    first = next(k for k, x in tensors.items() if x.is_floating_point() and k not in case.constants)

    def function(x):
        return case.function(**{**tensors, first: x}, **kwargs)

    try:
        ours = torch.func.grad(function)(tensors[first])
    except RuntimeError as error:
        assert "torch.func transforms" in str(error)
    else:
        expected = run(case.function, tensors, case.constants, kwargs, torch.float64)[1][first]
        torch.testing.assert_close(ours, expected)


def test_every_transform_is_refused_and_the_ways_out_work():
    q, k = torch.randn(2, 6, 4, dtype=torch.float64)

    def losses_of(x):
        return F.info_nce(x, k, reduction="none")

    batch = q.expand(3, -1, -1)
    for call in (
        lambda: torch.func.vmap(losses_of)(batch),
        lambda: torch.func.jacrev(losses_of)(q),
        lambda: torch.func.jacfwd(losses_of)(q),
        lambda: torch.func.hessian(lambda x: losses_of(x).sum())(q),
    ):
        with pytest.raises(RuntimeError, match=REFUSED):
            call()
    jacobian = torch.autograd.functional.jacobian(losses_of, q)
    exact = torch.func.jacrev(lambda x: _plain(x, k))(q)
    torch.testing.assert_close(jacobian, exact)
    module = losses.NTXentLoss()
    assert torch.equal(torch.func.functional_call(module, {}, (q, k)), module(q, k))


def _plain(q, k):
    s = nn.functional.normalize(q, dim=1) @ nn.functional.normalize(k, dim=1).T / 0.1
    return nn.functional.cross_entropy(s, torch.arange(len(q)), reduction="none")


def check_compiled_under_autocast(case):
    tensors, kwargs = case.arguments(12, 8, 0.1)

    def under_autocast(**arguments):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return case.function(**arguments)

    torch.compiler.reset()
    compiled = torch.compile(under_autocast, fullgraph=True, backend="aot_eager")
    ours = run(compiled, tensors, case.constants, kwargs, torch.float32)
    expected = run(case.function, tensors, case.constants, kwargs, torch.float32)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["nt_xent_ignore", "siglip"])
def test_compiles_under_autocast_to_one_graph(name):
    check_compiled_under_autocast(next(c for c in CASES if c.name == name))


@pytest.mark.slow
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda c: c.name)
def test_every_function_compiles_under_autocast_to_one_graph(case):
    check_compiled_under_autocast(case)
