"""Late interaction with masks, lengths, equal tokens and hard documents of any kind, against its
definition in float64."""

import torch
from torch import Tensor

import fastcl.functional as F
from fuzz.table import laid_out, size

SAME, NEAR = 1e-9, 2e-6  # cosines that are equal, and those that float32 may take for each other


def _tokens(rng, *shape: int) -> Tensor:
    """Of any length, now and then zero, and some as others are."""
    x = torch.randn(*shape, dtype=torch.float64) * 10 ** rng.uniform(-2, 2)
    for at in (-2, 0):  # tokens of an item, whole items
        if rng.random() < 0.4 and x.shape[at] > 1:
            x = x.index_select(at, torch.randint(x.shape[at], (x.shape[at],)))
    if rng.random() < 0.2:
        x[torch.rand(x.shape[:-1]) < 0.3] = 0.0
    return x


def _mask(rng, x: Tensor) -> Tensor | None:
    """A token of every item at least, anywhere."""
    if rng.random() < 0.4:
        return None
    there = torch.rand(x.shape[:-1]) < rng.choice((0.05, 0.5, 0.9))
    return there.scatter(-1, torch.randint(x.shape[-2], (*x.shape[:-2], 1)), True)


def _unit(x: Tensor) -> Tensor:
    """Zero tokens stay, and receive no gradient."""
    none = (x == 0).all(-1, keepdim=True)
    return torch.where(none, 0.0, x / torch.where(none, 1.0, x).norm(dim=-1, keepdim=True))


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, row: str) -> tuple[Tensor, Tensor]:
    """Of the best tokens, [n, documents, Lq], the first of equal ones, and whether one that is not
    equal is nearly as good."""
    s = torch.einsum(f"ntd,{row}ud->n{row[-1]}tu", q, k)
    if mask is not None:
        s = s.masked_fill(~(mask[None, :, None] if row == "m" else mask[:, :, None]), -torch.inf)
    below = s.detach().amax(3, keepdim=True) - s.detach()
    first = (below <= SAME).int().argmax(3, keepdim=True)
    return s.gather(3, first)[..., 0], ((below > SAME) & (below < NEAR)).any()


def _plain(given: dict, temperature: Tensor) -> tuple[Tensor, bool]:
    """The loss, and whether float32 can tell the best tokens."""
    q, near, scores = _unit(given["query"]), False, []
    for name, row in (("document", "m"), ("hard", "nh")):
        if name in given:
            k = _unit(given[name])
            s, close = _scores(q, k, given.get(f"{name}_mask"), row)
            near = near or bool(close)
            there = given.get("query_mask")
            scores.append((s if there is None else s * there[:, None]).sum(2))
    labels = torch.arange(len(q))
    return torch.nn.functional.cross_entropy(torch.cat(scores, 1) / temperature, labels), not near


def _drawn(rng, dtype: torch.dtype) -> dict[str, Tensor]:
    most = 90 if dtype == torch.float64 else 20
    n, d = rng.choice((1, 2, rng.randint(3, 12))), size(rng, 140)
    if (
        dtype == torch.float32
    ):  # of one feature every gradient is zero, and what is left is rounding
        d = max(d, 2)
    lengths = [rng.randint(1, 3) if rng.random() < 0.5 else size(rng, most) for _ in range(3)]
    shapes = {
        "query": (n, lengths[0]), "document": (n + rng.choice((0, 0, 1, 7)), lengths[1]),
        "hard": (n, rng.randint(1, 3), lengths[2]),
    }  # fmt: skip
    if rng.random() < 0.5:
        del shapes["hard"]
    given = {}
    for name, shape in shapes.items():
        given[name] = _tokens(rng, *shape, d).to(dtype)
        if (mask := _mask(rng, given[name])) is not None:
            given[f"{name}_mask"] = mask
    return given


def max_sim(rng) -> None:
    dtype = rng.choice((torch.float64, torch.float64, torch.float32))
    given, heat = _drawn(rng, dtype), rng.choice((0.02, 0.3, 2.0))
    names = [name for name in given if name in ("query", "document", "hard")]
    learned = rng.sample(names, rng.randint(1, len(names)))

    def run(function, dtype):
        temperature = torch.tensor(heat, dtype=dtype, requires_grad=True)
        leaves = {k: given[k].to(dtype).requires_grad_(k in learned) for k in names}
        found = function({**given, **leaves}, temperature)
        loss = found[0] if isinstance(found, tuple) else found
        wanted = [temperature, *(leaves[k] for k in learned)]
        return loss.detach(), *torch.autograd.grad(loss, wanted), found

    def ours(inputs, temperature):
        poison = {k: _poisoned(rng, inputs[k], inputs.get(f"{k}_mask")) for k in names}
        return F.max_sim(
            **{k: laid_out(rng)(x) for k, x in (inputs | poison).items()}, temperature=temperature
        )

    *exact, (_, clear) = run(_plain, torch.float64)
    found = run(ours, dtype)[:-1]
    eps = torch.finfo(dtype).eps
    # A score adds up Lq cosines; over a temperature its rounding is that of a probability.
    share = SAME if dtype == torch.float64 else eps * (8 + 8 * given["query"].shape[1] / heat)
    plain = run(_plain, dtype)[:-1]
    results = ["loss", "dtemperature", *(f"d{k}" for k in learned)]
    for name, x, y, z in zip(results, found, exact, plain, strict=True):
        if name == "loss" or clear or dtype == torch.float64:
            floor = 1 / heat if name == "dtemperature" else 1
            error, allowed = ((w.double() - y).abs().max() for w in (x, z))
            bound = 2 * allowed + share * (y.abs().max() + floor)
            assert error <= bound, f"{name}: error {error:.2e}, bound {bound:.2e}, eps {eps:.0e}"


def _poisoned(rng, x: Tensor, mask: Tensor | None) -> Tensor:
    """What is masked may hold anything."""
    if mask is None:
        return x
    anything = rng.choice((0.0, 9.0, torch.nan, torch.inf))
    return torch.where(mask[..., None], x, x.new_full((), anything))
