"""Late interaction over gloo ranks of unequal size: values and averaged gradients of one process
with the global batch."""

import random

import pytest
import torch
import torch.distributed as dist
from gloo import spawn

import fastcl.functional as F
from fastcl import distributed as D

WIDTH = 5
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def tokens(generator, *shape):
    return torch.randn(*shape, WIDTH, dtype=torch.float64, generator=generator)


def mask(generator, *shape):
    """A token of every item at least."""
    there = torch.rand(shape, generator=generator) < 0.6
    first = torch.randint(shape[-1], (*shape[:-1], 1), generator=generator)
    return there.scatter(-1, first, True)


def drawn(seed, world):
    """A problem: what every rank gives, and whether all give as much and as long."""
    r, g = random.Random(seed), torch.Generator().manual_seed(seed)
    alike, h = r.random() < 0.3, r.choice((0, 0, 1, 3))
    own = 3, 1, 4, 5, 2  # queries, documents beyond them, lengths of query, document, hard one
    masked = r.random() < 0.5
    parts = []
    for _ in range(world):
        n, more, q, k, o = own if alike else [r.randint(1, 5), r.randint(0, 2),
                                              *(r.randint(1, 7) for _ in "qko")]  # fmt: skip
        given = {"query": tokens(g, n, q), "document": tokens(g, n + more, k)}
        if h:
            given["hard"] = tokens(g, n, h, o)
        for name, x in list(given.items()):
            if masked if alike else r.random() < 0.5:
                given[f"{name}_mask"] = mask(g, *x.shape[:-1])
        if r.random() < 0.3:  # ties: a document as another, a token as another
            given["document"][-1] = given["document"][0]
            given["document"][:, -1] = given["document"][:, 0]
        parts.append(given)
    return parts, alike


def joined(parts):
    """Of one process: items as long as the longest, documents beyond one per query last."""
    whole = {}
    for name in ("query", "document", "hard"):
        xs = [part[name] for part in parts if name in part]
        if not xs:
            continue
        longest = max(x.shape[-2] for x in xs)
        masks = [
            part.get(f"{name}_mask", torch.ones(x.shape[:-1], dtype=torch.bool))
            for part, x in zip(parts, xs, strict=True)
        ]
        xs = [torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[-2])) for x in xs]
        masks = [torch.nn.functional.pad(y, (0, longest - y.shape[-1])) for y in masks]
        if name == "document":
            counts = [len(part["query"]) for part in parts]
            xs, masks = ([x[:n] for x, n in zip(ys, counts, strict=True)]
                         + [x[n:] for x, n in zip(ys, counts, strict=True)]
                         for ys in (xs, masks))  # fmt: skip
        whole[name], whole[f"{name}_mask"] = torch.cat(xs), torch.cat(masks)
    return whole


def gradients(function, given, **more):
    """The value, and the gradients of what has tokens and of the temperature."""
    leaves = {k: x.clone().requires_grad_() for k, x in given.items() if x.is_floating_point()}
    heat = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value = function(**{**given, **leaves}, temperature=heat, **more)
    value.backward()
    return value.detach(), heat.grad, {k: x.grad for k, x in leaves.items()}


def _random_problems(rank, world, seeds):
    for seed in seeds:
        parts, alike = drawn(seed, world)
        want, heat, grads = gradients(F.max_sim, joined(parts))
        for equal in (False, True) if alike else (False,):
            value, own, found = gradients(D.max_sim, parts[rank], equal=equal)
            torch.testing.assert_close(value, want, **CLOSE, msg=f"seed {seed}")
            torch.testing.assert_close(own, heat, **CLOSE, msg=f"seed {seed}")
            _as_one_process(found, grads, parts, rank, f"seed {seed}")


def _as_one_process(found, grads, parts, rank, message):
    before = sum(len(part["query"]) for part in parts[:rank])
    n, world = len(parts[rank]["query"]), len(parts)
    spare = [len(part["document"]) - len(part["query"]) for part in parts]
    for name, x in found.items():
        whole = grads[name][..., : x.shape[-2], :]
        want = whole[before : before + n]
        if name == "document":
            first = len(grads["query"]) + sum(spare[:rank])
            want = torch.cat([want, whole[first : first + spare[rank]]])
        torch.testing.assert_close(x / world, want, **CLOSE, msg=f"{message} {name}")


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_averaged_gradients_equal_one_process(world, tmp_path):
    spawn(_random_problems, world, tmp_path, world, range(40))


def _the_mean_of_means_is_another(rank):
    parts = next(p for p in (drawn(s, 2)[0] for s in range(9))
                 if len(p[0]["query"]) != len(p[1]["query"]))  # fmt: skip
    alone = F.max_sim(**parts[rank], temperature=0.3)
    dist.all_reduce(alone)
    assert abs(alone / 2 - D.max_sim(**parts[rank], temperature=0.3)) > 1e-3


def test_the_comparison_sees_a_difference(tmp_path):
    spawn(_the_mean_of_means_is_another, 2, tmp_path)


def _bad_input(rank):
    """What is wrong on one rank, or differs, is an error on all of them, and then all is well."""
    q, d, there = torch.randn(2, 3, 4), torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.bool)
    empty = there.clone()
    empty[1] = False
    first = rank == 0
    for given, options, error, message in (
        ((q, d, None, empty if first else there), {}, ValueError, "leave a token|of its own"),
        ((q[:, :0] if first else q, d), {}, ValueError, "query must not be empty|of its own"),
        ((q, d[:1] if first else d), {}, ValueError, "as many items as query|of its own"),
        ((q, d), {"temperature": 0.1 + rank}, ValueError, "temperature must be the same"),
        ((q, d), {"normalize": first}, ValueError, "normalize must be the same"),
        ((q[..., : 3 + rank], d[..., : 3 + rank]), {}, ValueError, "the same width on every"),
        ((q.double(), d.double()) if first else (q, d), {}, TypeError, "same dtype on every"),
        ((q, d.clone().requires_grad_(first)), {}, ValueError, "document must require a gradient"),
        (("words" if first else q, d), {}, (TypeError, ValueError), "query must|of its own"),
    ):
        with pytest.raises(error, match=message):
            D.max_sim(*given, **options)
    assert D.max_sim(q, d).isfinite()


def test_bad_input(tmp_path):
    spawn(_bad_input, 2, tmp_path)


def test_in_one_process_it_is_its_namesake():
    (given,), _ = drawn(3, 1)
    assert torch.equal(D.max_sim(**given), F.max_sim(**given))
