"""The general contrast against its definition with the matrix, any options together."""

import plain_contrast
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from positive_cases import POSITIVES
from positive_draws import KINDS, arguments, leaves

import fastcl.functional as F

EXAMPLES = 10 * settings.default.max_examples


def assert_equal(ours, plain, inputs):
    """Values, and the gradients of any function of them."""
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
    if not plain.requires_grad:
        return
    upstream = torch.randn_like(plain)
    grads = [
        torch.autograd.grad((x * upstream).sum(), inputs, allow_unused=True, materialize_grads=True)
        for x in (ours, plain)
    ]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


@settings(max_examples=EXAMPLES)
@given(drawn=arguments(), data=st.data())
def test_any_options_together(drawn, data):
    query, key, options = drawn
    inputs = leaves(lambda name: data.draw(st.booleans(), name), query, key, options)
    ours = F.contrast(query, key, **options)
    assert_equal(ours, plain_contrast.contrast(query, key, **options), inputs)


@settings(max_examples=EXAMPLES // 3)
@given(drawn=arguments())
def test_rows_as_they_are(drawn):
    query, key, options = drawn
    inputs = leaves(lambda name: name in ("query", "key"), query, key, options)
    ours = F.contrast(query, key, **options, normalize=False)
    assert_equal(ours, plain_contrast.contrast(query, key, **options, normalize=False), inputs)


def test_every_kind_of_option_is_drawn():
    """A strategy that always drew the same would show nothing."""
    seen = {name: set() for name in ("kind", "both", "positives", "reduction", "judge", "alone")}

    @settings(max_examples=EXAMPLES, database=None)
    @given(drawn=arguments())
    def look(drawn):
        _, key, options = drawn
        kind = next((k for k in KINDS if k in options), "own")
        seen["kind"].add("levels" if options.get("level_weights") is not None else kind)
        judge = "guide" if "guide" in options else "margin" if "margin" in options else None
        seen["judge"].add(judge)
        seen["alone"].add(key is None)
        for name in ("both", "positives", "reduction"):
            seen[name].add(options.get(name))

    look()
    assert seen["kind"] == set(KINDS)
    assert seen["judge"] == {None, "margin", "guide"}
    assert seen["alone"] == seen["both"] == {False, True}
    assert seen["positives"] == {"mean", "sum"}
    assert seen["reduction"] >= {"mean", "sum", "none"}


# Of every function that is no row of hypothesis above: its table, in float64.
NAMED = [case for case in POSITIVES if not case.name.startswith("contrast")]


@settings(max_examples=max(1, settings.default.max_examples // 2))
@given(
    n=st.integers(2, 40), d=st.integers(1, 12), seed=st.integers(0, 999),
    temperature=st.floats(0.05, 2.0),
)  # fmt: skip
@pytest.mark.parametrize("case", NAMED, ids=lambda c: c.name)
def test_named(case, n, d, seed, temperature):
    torch.manual_seed(seed)
    tensors, kwargs = case.arguments(n, d, temperature)
    inputs = [
        x.requires_grad_() for name, x in tensors.items()
        if x.is_floating_point() and name not in case.constants
    ]  # fmt: skip
    ours, plain = (f(**tensors, **kwargs) for f in (case.function, case.plain))
    assert_equal(ours, plain, inputs)
