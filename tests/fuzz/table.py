"""The table of losses on problems that are drawn: sizes, dtypes, memory layouts, equal rows, one
tensor in two places, temperatures that learn, and what else does not change the plain twin."""

import dataclasses
import inspect

import torch
from case import Case, rounded, run
from test_modules import MODULES

DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16
# Lanes, tiles and blocks end at multiples of 16; one more and one less are what a bug is fond of.
BORDERS = tuple(b + e for b in (16, 32, 48, 64, 128, 240, 256) for e in (-1, 0, 1))
# What is normalised before it is multiplied: rows by themselves, and what is unit already.
SIDES = (
    "query", "key", "z", "z0", "z1", "z2", "image", "text", "q1", "q2", "k1", "k2", "p1", "p2",
    "negatives", "hard", "document", "x", "l", "ab", "keys",
)  # fmt: skip
# Of these the inputs are made so that rounding decides nothing; other rows would undo it.
SLICE = 256  # features that csrc/cpu/contrast.h sums at a time
DELICATE = "margin", "guide", "retrieval", "strangers", "debiased", "hcl", "dclw"


def size(rng, most: int) -> int:
    """Mostly small; borders; anything up to most."""
    way = rng.random()
    if way < 0.4:
        return rng.randint(1, 9)
    return rng.choice([b for b in BORDERS if b <= most]) if way < 0.7 else rng.randint(1, most)


def laid_out(rng):
    """How a tensor lies in memory, as a function that gradients pass through; what lies between its
    elements is poison."""

    def poisoned(x):
        return x.new_full(x.shape, torch.nan if x.is_floating_point() else -(2**40))

    def turned(x):
        return x.mT.contiguous().mT if x.dim() > 1 else x

    def strided(x):
        return torch.stack([poisoned(x), x], -1)[..., 1] if x.dim() else x

    def narrowed(x):
        return torch.cat([poisoned(x), x, poisoned(x)], -1).chunk(3, -1)[1] if x.dim() else x

    def behind(x):
        first = poisoned(x).flatten()[:1]
        return torch.cat([first, x.flatten()])[len(first) :].view(x.shape)

    return rng.choice((lambda x: x, lambda x: x, turned, strided, narrowed, behind))


def spread(rng, ids):
    """Other numbers for the same classes, far apart: multiplying by odd numbers is one to one."""
    return ids * rng.choice((1, 1, -1, 2**61 + 1, 2**63 - 25)) + rng.choice((0, -3, 2**62))


def disturbed(rng, case: Case, tensors: dict) -> dict:
    """Equal rows, and rows that are much longer than others; shorter ones would amplify errors."""
    if any(word in case.name for word in DELICATE):
        return tensors
    for name, x in tensors.items():
        if not x.is_floating_point() or x.dim() < 2 or name not in SIDES:
            continue
        if len(x) > 2 and rng.random() < 0.2:
            x[rng.randrange(len(x))] = x[rng.randrange(len(x))]
        if case.any_length and rng.random() < 0.2:
            x *= 10 ** (2 * torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype))
    return tensors


def _aliased(rng, case: Case, tensors: dict) -> dict[str, str]:
    """One tensor for two arguments."""
    if any(word in case.name for word in DELICATE) or rng.random() > 0.1:
        return {}
    twins = [
        (a, b) for a in SIDES for b in SIDES
        if a < b and a in tensors and b in tensors and tensors[a].shape == tensors[b].shape
        and not {a, b} & set(case.constants)
    ]  # fmt: skip
    return dict([rng.choice(twins)]) if twins else {}


def drawn(rng, case: Case) -> tuple[Case, dict, dict, torch.dtype]:
    """The case as it is called here, its tensors and options."""
    dtype = rng.choice(DTYPES)
    # Of one feature every gradient is zero, in plain PyTorch to the last digit: the table has it.
    n, d = max(size(rng, 150), case.smallest), max(size(rng, 257), 2)
    tensors, kwargs = case.arguments(n, d, 10 ** rng.uniform(-2, 0.3))
    tensors = disturbed(rng, case, tensors)
    for name in ("ids", "labels", "labels0"):
        if name in tensors:
            _spread_together(rng, tensors, name)
    parameters = inspect.signature(case.function).parameters
    options = {}
    if "normalize" in parameters and rng.random() < 0.2:
        options["normalize"] = False
    if "reduction" in parameters:
        options["reduction"] = rng.choice(("mean", "sum", "none"))
    learns = "Tensor" in str(getattr(parameters.get("temperature"), "annotation", ""))
    if case.derivative and learns and rng.random() < 0.3:
        tensors["temperature"] = torch.tensor(kwargs.pop("temperature"), dtype=torch.float64)
    aliases = _aliased(rng, case, tensors)
    for name in aliases.values():
        del tensors[name]
    learned = [k for k, x in tensors.items() if x.is_floating_point() and k not in case.constants]
    frozen = rng.sample(learned, rng.randrange(len(learned))) if rng.random() < 0.3 else ()
    by_module = case.name in MODULES and "temperature" not in tensors and rng.random() < 0.2
    if by_module and dtype != torch.float64:  # what a module learns is float32
        case, options = dataclasses.replace(case, function=_module(case.name)), {}
    called = _called(rng, case, aliases, options, list(tensors))
    called = dataclasses.replace(called, constants=(*case.constants, *frozen))
    return called, rounded(tensors, dtype), kwargs, dtype


def _module(name: str):
    """The loss as a module that is made of the options."""

    def function(**arguments):
        tensors = {k: x for k, x in arguments.items() if isinstance(x, torch.Tensor)}
        options = {k: x for k, x in arguments.items() if k not in tensors}
        return MODULES[name](**options)(**tensors)

    return function


def _spread_together(rng, tensors, name) -> None:
    state = rng.getstate()
    for other in (name, "queue_ids" if name == "ids" else "labels1" if name == "labels0" else None):
        if other in tensors:
            rng.setstate(state)
            tensors[other] = spread(rng, tensors[other])


def _called(rng, case: Case, aliases: dict, options: dict, names: list[str]) -> Case:
    layouts = {name: laid_out(rng) for name in names}
    factor = rng.choice((1, 1, 4, -0.5))

    def with_aliases(arguments):
        return arguments | {b: arguments[a] for a, b in aliases.items()}

    def function(**arguments):
        found = {k: layouts[k](x) if k in layouts else x for k, x in arguments.items()}
        if options.get("normalize") is False:
            found |= {k: _unit(x) for k, x in found.items() if k in SIDES}
        loss = case.function(**with_aliases(found), **options)
        rows = len(next(iter(arguments.values())))
        return factor * (loss / rows if options.get("reduction") == "sum" else loss).mean()

    def twin(**arguments):
        return factor * case.plain(**with_aliases(arguments))

    return dataclasses.replace(case, function=function, plain=twin)


def _unit(x):
    return torch.nn.functional.normalize(x, dim=-1, eps=1e-12)


def neighbours(tensors: dict, dtype: torch.dtype) -> dict:
    """The same problem but for the last digit of its numbers."""
    eps = torch.finfo(dtype).eps

    def moved(x):
        return x * (1 + eps * (2 * torch.rand_like(x) - 1)) if x.is_floating_point() else x

    return rounded({k: moved(x) for k, x in tensors.items()}, dtype)


def _results(value, grads) -> dict:
    return {"loss": value, **{f"d{name}": grad for name, grad in grads.items()}}


def _exceeds(ours: dict, exact: dict, allowed: dict, eps: float) -> str | None:
    """What is further from float64 than is allowed and four roundings of one."""
    assert ours.keys() == exact.keys()
    for name, x in ours.items():
        error = (x - exact[name]).abs()
        bound = allowed[name] + 4 * eps * (1 + exact[name].abs())
        if not (error <= bound).all():  # NaN too
            return f"{name}: error {error.max():.2e}, bound {bound.min():.2e}, eps {eps:.0e}"
    return None


def _told(exact: dict, temperature: float, width: int) -> dict:
    """What no arithmetic in float32 can do without, where plain PyTorch was lucky.

    In half steps of float32, eps / 2: the cosine of rows that agree is summed in order, in slices
    of at most 256 features, from products whose partial sums grow to one evenly. One between 1/2
    and 1 is rounded by a half at most, evenly: 1/12 on average, squared, for half of the features;
    those between 1/4 and 1/2 by half of that for a quarter; in all a 21st of a feature, as
    test_fuzz measures. Of the millions of cosines of a run some are five deviations wrong. A
    logit's distance to the own one is that of two cosines, and of the lengths of their columns, a
    half step each; all over the temperature. Of a soft-max a gradient moves by as much of itself,
    the loss by as much of itself up to one; a sum of many logistic terms, which averages them, by
    a rounding. That of the temperature is its own last digit, too.
    """
    half = torch.finfo(torch.float32).eps / 2 / temperature
    steps = 2 + 5 * (2 * min(width, SLICE) / 21) ** 0.5
    allowed = {name: steps * half * x.abs().max() for name, x in exact.items()}
    loss = exact["loss"].abs()
    allowed["loss"] = half * (steps * loss.clamp(max=1) + loss)
    if "dtemperature" in exact:
        allowed["dtemperature"] += 8 * half / temperature
    return allowed


def check(rng, case: Case) -> None:
    """Twice as wrong as plain PyTorch, and by what the last digits of the inputs are worth.

    Of a single problem plain PyTorch may be exact by luck: the worst of nine neighbours counts, and
    what is right in float64 moves by between them. Where that is infinite, it tells nothing.
    """
    called, tensors, kwargs, dtype = drawn(rng, case)
    ours = _results(*run(called.function, tensors, called.constants, kwargs, dtype))
    exact = _results(*run(called.plain, tensors, called.constants, kwargs, torch.float64))
    if not all(x.isfinite().all() for x in exact.values()):
        return
    if dtype == torch.float64:  # the judge is as wrong: how wrong is seen in float32
        tolerance = {k: 1e-9 * (1 + x.abs().max()) for k, x in exact.items()}
        found = _exceeds(ours, exact, tolerance, 0)
        assert found is None, found
        return
    scale = tensors.get("logit_scale", 1.0) / tensors.get("temperature", 1.0)
    eps = torch.finfo(dtype).eps
    width = max((x.shape[-1] for x in tensors.values() if x.dim() > 1), default=1)
    allowed = _told(exact, kwargs.get("temperature", 1.0) / float(scale), width)
    for k, x in exact.items():  # a gradient has the dtype of its input
        if x.abs().max() > torch.finfo(dtype).max:
            allowed[k] = torch.tensor(torch.inf)
    for attempt in range(9):
        near = neighbours(tensors, dtype) if attempt else tensors
        twin, judge = (
            _results(*run(called.plain, near, called.constants, kwargs, t))
            for t in (dtype, torch.float64)
        )
        for k, x in twin.items():
            wrong = 2 * (x - judge[k]).abs().max() + 4 * (judge[k] - exact[k]).abs().max()
            # A twin that overflows tells nothing: ours is finite then, or wrong.
            allowed[k] = max(allowed[k], wrong if wrong.isfinite() else _overflow(exact[k]))
        found = _exceeds(ours, exact, allowed, eps)
        if found is None:
            return
    raise AssertionError(found)


def _overflow(exact: torch.Tensor) -> torch.Tensor:
    return 0.5 * exact.abs().max()
