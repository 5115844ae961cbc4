"""The cached step of encoders of all kinds: the gradients of the full step."""

import functools
from collections import OrderedDict

import pytest
import torch
from torch import nn

import fastcl

ROWS, WIDTH = 8, 4


def _loss(a, b):
    return ((a @ b.T) ** 2).mean()


def _step(encoders, inputs, loss, parameters, cached):
    """Value and gradients of a step in chunks of three rows, or of the whole batch at once."""
    for p in parameters:
        p.grad = None
    if cached:
        value = fastcl.cached_step(encoders, inputs(), loss, chunk_size=3)
    else:
        outs = [encoder(x) for encoder, x in zip(encoders, inputs(), strict=True)]
        outs = [y for out in outs for y in (out if isinstance(out, tuple) else (out,))]
        value = loss(*outs)
        value.backward()
    return value.detach(), [p.grad for p in parameters]


def _same(encoders, inputs, loss, parameters):
    """In float64, of which 2^-53 is one rounding: chunks add the same few terms in another order,
    which a bound of some thousand roundings holds and a lost chunk or gradient does not."""
    want, got = (_step(encoders, inputs, loss, parameters, cached) for cached in (False, True))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    assert any(g is not None for g in got[1])


@pytest.fixture
def towers():
    return [nn.Linear(WIDTH, WIDTH).double() for _ in "12"]


@pytest.fixture
def inputs():
    x, y = torch.randn(2, ROWS, WIDTH, dtype=torch.float64)
    return lambda: [x, y]


def _no_grad(encoder):
    return torch.no_grad()(encoder)


@pytest.mark.parametrize("frozen", ["parameters", "no_grad", "lambda", "detached", "unused"])
def test_an_encoder_without_gradient(towers, inputs, frozen):
    one, two = towers
    loss, encoders = _loss, [one, two]
    if frozen == "parameters":
        two.requires_grad_(False)
    elif frozen == "no_grad":
        encoders[1] = _no_grad(two)
    elif frozen == "lambda":
        encoders[1] = lambda x: two(x).detach()
    elif frozen == "detached":
        loss = lambda a, b: _loss(a, b.detach())  # noqa: E731
    else:
        loss = lambda a, b: a.square().mean()  # noqa: E731
    _same(encoders, inputs, loss, [*one.parameters(), *two.parameters()])


@pytest.mark.parametrize("leaf", [True, False])
def test_inputs_that_learn(towers, inputs, leaf):
    """Prompts of a frozen encoder, as they are or computed from parameters; in both inputs."""
    prompts = torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True)
    towers[1].requires_grad_(False)

    def with_prompts():
        x = prompts if leaf else prompts.sin()
        return [x, x]

    _same(towers, with_prompts, _loss, [prompts, *towers[0].parameters()])


class _Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)).double()

    def encode(self, x):
        return self.layers(x)

    forward = encode


class _Holder:
    def __init__(self, tower):
        self.tower = tower

    def encode(self, x):
        return self.tower(x)

    __call__ = encode


KINDS = {
    "module": lambda tower: tower,
    "method": lambda tower: tower.encode,
    "partial": lambda tower: functools.partial(tower.encode),
    "lambda": lambda tower: lambda x: tower(x),
    "decorated": lambda tower: torch.autocast("cpu", enabled=False)(tower),
    "nested": lambda tower: functools.partial(lambda f, x: f(x), lambda x: tower.encode(x)),
    "object": _Holder,
    "method of an object": lambda tower: _Holder(tower).encode,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_statistics_move_once(inputs, kind):
    tower = _Tower()
    encoder = kind(tower)
    fastcl.cached_step([encoder, encoder], inputs(), _loss, chunk_size=4)
    assert tower.layers[1].num_batches_tracked == 4  # two inputs in two chunks


class Output(OrderedDict):
    """What transformers returns: a mapping whose values are attributes too."""

    __getattr__ = OrderedDict.__getitem__


@pytest.mark.parametrize("kind", [dict, Output])
def test_mappings_integers_and_a_learned_scale(towers, inputs, kind):
    scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def encode(x):
        ids = torch.arange(len(x))
        return kind(z=towers[0](x), ids=ids, more=(x, None), scale=scale.exp(), name="a")

    def loss(a, b):
        assert type(a) is kind and a["ids"].shape == (ROWS,) and a["name"] == "a"
        assert a["more"][0].shape == (ROWS, WIDTH) and a["more"][1] is None
        return _loss(a["z"], b) * a["scale"]

    _same([encode, towers[1]], inputs, loss, [scale, *towers[0].parameters()])


def test_integers_beside_the_embedding(towers, inputs):
    def encode(x):
        return towers[0](x), (x > 0).long()

    def loss(a, signs, b):
        return _loss(a * signs, b)

    _same([encode, towers[1]], inputs, loss, [*towers[0].parameters()])


def test_a_number_that_differs_between_chunks_is_refused(towers, inputs):
    def encode(x):
        return towers[0](x), x.mean()

    with pytest.raises(ValueError, match="outputs without dimensions must be the same"):
        fastcl.cached_step([encode, towers[1]], inputs(), lambda a, _, b: _loss(a, b), chunk_size=3)
