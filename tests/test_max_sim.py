"""Late interaction: its laws, and its kernel on the CPU whatever way its tiles go."""

import subprocess
import sys
from pathlib import Path

import plain_contrast
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processors import built, pair_products, running

import fastcl.functional as F
from fastcl import reference
from fastcl._library import ops

ALL = (True,) * 4
SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.integers(1, 9)


def tokens(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def mask(*shape):
    """A token of every item at least."""
    there = torch.rand(shape) < 0.6
    there.scatter_(-1, torch.randint(shape[-1], (*shape[:-1], 1)), True)
    return there


def gradients(function, inputs, **arguments):
    inputs = {k: x.clone().requires_grad_() for k, x in inputs.items()}
    loss = function(**inputs, **arguments)
    return loss.detach(), *torch.autograd.grad(loss, list(inputs.values()))


@given(n=SIZES, more=st.integers(0, 3), lengths=st.tuples(SIZES, SIZES, SIZES), d=SIZES,
       temperature=st.floats(0.05, 2.0), seed=SEEDS)  # fmt: skip
def test_equals_the_plain_twin(n, more, lengths, d, temperature, seed):
    torch.manual_seed(seed)
    q, k, h = lengths
    inputs = {
        "query": tokens(n, q, d), "document": tokens(n + more, k, d), "hard": tokens(n, 2, h, d)
    }  # fmt: skip
    masks = {
        "query_mask": mask(n, q), "document_mask": mask(n + more, k), "hard_mask": mask(n, 2, h)
    }  # fmt: skip
    ours = gradients(F.max_sim, inputs, **masks, temperature=temperature)
    plain = gradients(plain_contrast.max_sim, inputs, **masks, temperature=temperature)
    # Of one feature the cosine is a sign, and which of equal tokens is the best decides nothing.
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


@given(n=SIZES, q=SIZES, k=SIZES, seed=SEEDS, value=st.sampled_from((0.0, 9.0, torch.nan)))
def test_masked_tokens_change_nothing(n, q, k, seed, value):
    torch.manual_seed(seed)
    inputs = {"query": tokens(n, q, 5), "document": tokens(n, k, 5)}
    masks = {"query_mask": mask(n, q), "document_mask": mask(n, k)}
    ours = gradients(F.max_sim, inputs, **masks)
    for name, x in inputs.items():
        x[~masks[f"{name}_mask"]] = value
    others = gradients(F.max_sim, inputs, **masks)
    assert all(torch.equal(x, y) for x, y in zip(ours, others, strict=True))
    for name, grad in zip(inputs, ours[1:], strict=True):
        assert not grad[~masks[f"{name}_mask"]].any()


@given(n=SIZES, q=SIZES, k=SIZES, seed=SEEDS, data=st.data())
def test_a_token_twice_changes_no_score_and_the_first_has_the_gradient(n, q, k, seed, data):
    torch.manual_seed(seed)
    query, document = tokens(n, q, 5), tokens(n, k, 5)
    which = data.draw(st.integers(0, k - 1))
    twice = torch.cat([document, document[:, which : which + 1]], 1)
    once = gradients(F.max_sim, {"query": query, "document": document})
    ours = gradients(F.max_sim, {"query": query, "document": twice})
    assert torch.equal(ours[0], once[0]) and torch.equal(ours[1], once[1])
    assert torch.equal(ours[2][:, :k], once[2]) and not ours[2][:, k].any()


@given(n=SIZES, more=st.integers(0, 5), d=SIZES, temperature=st.floats(0.01, 2.0), seed=SEEDS)
def test_one_token_each_is_info_nce(n, more, d, temperature, seed):
    torch.manual_seed(seed)
    query, document = tokens(n, 1, d), tokens(n + more, 1, d)
    ours = F.max_sim(query, document, temperature=temperature)
    labels = torch.arange(n), torch.arange(n + more)
    expected = F.contrast(query[:, 0], document[:, 0], temperature=temperature, labels=labels)
    torch.testing.assert_close(ours, expected)
    ours = F.max_sim(query, document[:n], temperature=temperature)
    expected = F.info_nce(query[:, 0], document[:n, 0], temperature=temperature)
    torch.testing.assert_close(ours, expected)


@given(n=SIZES, more=st.integers(0, 5), q=SIZES, k=SIZES, seed=SEEDS)
def test_order_of_documents_does_not_matter(n, more, q, k, seed):
    torch.manual_seed(seed)
    query, document = tokens(n, q, 5), tokens(n + more, k, 5)
    expected = F.max_sim(query, document)
    order, rest = torch.randperm(n), n + torch.randperm(more)
    ours = F.max_sim(query[order], document[torch.cat([order, rest])])
    torch.testing.assert_close(ours, expected)
    shuffled = document[:, torch.randperm(k)]
    torch.testing.assert_close(F.max_sim(query, shuffled), expected)


@given(n=SIZES, q=SIZES, k=SIZES, seed=SEEDS)
def test_hard_ones_that_all_queries_share_are_documents(n, q, k, seed):
    torch.manual_seed(seed)
    query, document, more = tokens(n, q, 5), tokens(n, k, 5), tokens(2, k, 5)
    ours = F.max_sim(query, document, hard=more.expand(n, 2, k, 5))
    torch.testing.assert_close(ours, F.max_sim(query, torch.cat([document, more])))


def test_unit_tokens_as_they_are():
    query, document = (torch.nn.functional.normalize(tokens(5, 4, 6), dim=2) for _ in "12")
    ours = F.max_sim(query, document, normalize=False)
    torch.testing.assert_close(ours, F.max_sim(query, document))


def test_a_learned_temperature():
    heat = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    query, document = tokens(4, 3, 5), tokens(6, 7, 5)
    assert torch.autograd.gradcheck(lambda t: F.max_sim(query, document, temperature=t), heat)


# Queries, their tokens, documents, theirs, hard ones, theirs, width.
SHAPES = {
    "one": (1, 1, 1, 1, 0, 0, 1),
    "lanes": (5, 17, 7, 33, 2, 15, 24),
    "blocks of documents": (3, 9, 4, 500, 1, 241, 16),
    "blocks of queries": (3, 300, 3, 20, 2, 7, 12),
    "chunks": (40, 64, 300, 3, 1, 2, 40),
    "long items": (2, 700, 2, 6, 0, 0, 8),
    "slices": (3, 5, 4, 19, 2, 18, 1030),
}
DTYPES = {torch.float32: 4e-6, torch.float64: 1e-13, torch.float16: 4e-6, torch.bfloat16: 4e-6}


def arguments(shape, dtype=torch.float32, needs=ALL, masked=True):
    n, q, m, k, h, o, d = shape
    hard = tokens(n, h, o, d, dtype=dtype) if h else None
    masks = (mask(n, q), mask(m, k), mask(n, h, o) if h else None) if masked else (None,) * 3
    scale = torch.tensor(2.0, dtype=torch.float64)
    given = tokens(n, q, d, dtype=dtype), tokens(m, k, d, dtype=dtype), hard, *masks, scale
    return *given, 1.0 / q, True, *needs


def wide(given):
    floating = lambda x: isinstance(x, torch.Tensor) and x.is_floating_point()  # noqa: E731
    return [x.double() if floating(x) else x for x in given]


def assert_close(ours, exact, bound):
    """Loss and slope are sums of logits around one, which may nearly cancel."""
    for x, y, floor in zip(ours, exact, (1, 1e-3, 1e-3, 1e-3, 1), strict=True):
        assert x.shape == y.shape
        error = (x.double() - y).abs()
        assert (error <= bound * (y.abs().max() + floor)).all() if y.numel() else True


@built
@pytest.mark.instruction_sets
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_reference(shape, dtype, masked):
    given = arguments(SHAPES[shape], dtype, masked=masked)
    exact = reference.max_sim_mean(*wide(given))
    assert_close(ops.max_sim_mean(*given), exact, DTYPES[dtype])


@built
@pair_products
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_pairs(products, shape):
    given = arguments(SHAPES[shape], torch.bfloat16)
    exact = reference.max_sim_mean(*wide(given))
    with running(products=products):
        assert_close(ops.max_sim_mean(*given), exact, DTYPES[torch.bfloat16])


@built
@pytest.mark.parametrize("which", range(4))
def test_only_what_is_needed(which):
    needs = tuple(i == which for i in range(4))
    given = arguments(SHAPES["lanes"], needs=needs)
    everything = ops.max_sim_mean(*given[:-4], *ALL)
    for i, (x, y) in enumerate(zip(ops.max_sim_mean(*given), everything, strict=True)):
        assert torch.equal(x, y) if i in (0, which + 1) else x.shape == (0, *y.shape[1:])


@built
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_bits_from_any_number_of_threads(shape):
    given = arguments(SHAPES[shape])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.max_sim_mean(*given))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


@pytest.mark.parametrize("which", [3, 4, 5])
@pytest.mark.parametrize("of", [ops.max_sim_mean, reference.max_sim_mean])
def test_no_token_gives_nan(of, which):
    """Where nobody looked at the masks."""
    given = list(arguments(SHAPES["lanes"]))
    given[which] = given[which].clone()
    given[which][1] = False
    assert of(*given)[0].isnan()


@pytest.mark.parametrize("of", [ops.max_sim_mean, reference.max_sim_mean])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("normalize", [False, True])
def test_any_poisoned_token_gives_nan(of, value, normalize):
    given = list(arguments(SHAPES["lanes"], masked=False))
    given[8] = normalize
    for which in (0, 1, 2):
        poisoned = [x.clone() if isinstance(x, torch.Tensor) else x for x in given]
        poisoned[which].view(-1, given[0].shape[2])[4] = value
        assert of(*poisoned)[0].isnan()


@pytest.mark.parametrize("of", [ops.max_sim_mean, reference.max_sim_mean])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("normalize", [False, True])
def test_one_pair_alone_is_poisoned_too(of, value, normalize):
    """Whose loss is 0 otherwise, as there is nothing to tell it from."""
    query, document = torch.rand(2, 1, 5, 8)
    more = (*(None,) * 5, 1.0, normalize, *(False,) * 4)
    # The least token of a document is not its best.
    for place in (0,) if value == -torch.inf else (0, 1):
        given = [query.clone(), document.clone()]
        given[place][0, 2, 3] = value
        assert not of(*given, *more)[0].isfinite()
    assert of(query, document, *more)[0] == 0


@built
def test_memory_is_linear():
    """The highest resident size of a process above inputs and gradients: 4 MB of a chunk, and
    tiles; the tensor of all products would be 1.5 GB."""
    program = f"""
import resource, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from fastcl._library import ops
torch.set_num_threads(2)
def step(n):
    q, d = torch.randn(n, 32, 128), torch.randn(n, 180, 128)
    outputs = torch.ones_like(q), torch.ones_like(d)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del outputs
    ops.max_sim_mean(q, d, *[None] * 5, 50.0, True, True, True, False, False)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
step(16)
print(step(256))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 16
