"""The raw operators: schema, fake kernel, and which kernel runs.

This is the only file that knows. PyTorch's dispatcher decides by device; the reference is the
fallback of every operator, so all of them work, trace and compile with nothing built. Raw
operators have no autograd: the functions over them own it.
"""

import sys
from importlib import import_module
from pathlib import Path

import torch

from . import kernels, reference
from .contrast.problem import SCHEMA, Problem

library = torch.library.Library("fastcl", "DEF")
# Operators on a problem, whose fields are their first arguments.
PROBLEMS = "contrast_forward", "contrast_backward", "contrast_mean", "sigmoid_contrast"


def _define(schema: str, fake) -> None:
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.split("(")[0]
    library.impl(name, _of(name, getattr(reference, name)), "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastcl::{name}", _of(name, fake), lib=library)


def _of(name: str, function):
    """The function on the arguments of the operator: where these begin with the fields of a
    problem, on the problem."""
    if not name.startswith(PROBLEMS):
        return function
    fields = len(Problem._fields)
    return lambda *arguments: function(Problem(*arguments[:fields]), *arguments[fields:])


def _empty(p: Problem, *shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    dtype = reference.accumulate_dtype(p.q[0].dtype)
    return tuple(p.q[0].new_empty(shape, dtype=dtype) for shape in shapes)


def _contrast_forward_fake(p, pivot, need_q, need_k):
    n, finished = p.rows, p.finishes(need_q, need_k)
    shapes = (4, n), (4, p.columns if p.both else 0), (n if finished else 0, p.width)
    rows, cols, weighted = _empty(p, *shapes)
    return rows, cols, rows.new_empty(0 if pivot is None else n, dtype=torch.int64), weighted


def _gradients(p, need_q, need_k, need_own=False, need_scale=False):
    n, m, d = p.rows, 0 if p.symmetric else p.columns, p.width
    sizes = (n if need_q else 0, d), (m if need_k else 0, d), (n if need_own else 0, d)
    return *sizes, (1 if need_scale else 0,)


def _contrast_backward_fake(
    p, rows, cols, weighted, grad_loss, grad_positive, grad_col_loss, grad_col_positive,
    need_q, *needs,
):  # fmt: skip
    return _empty(p, *_gradients(p, need_q or p.symmetric, *needs))


def _contrast_mean_fake(p, *needs):
    return _empty(p, (), (p.rows,), *_gradients(p, *needs))


def _nested_contrast_mean_fake(
    q, k, logit_scale, scale, widths, weights, need_q, need_k, need_scale
):  # fmt: skip
    (n, d), dtype = q.shape, reference.accumulate_dtype(q.dtype)
    shapes = (), (n if need_q else 0, d), (n if need_k else 0, d), (1 if need_scale else 0,)
    return tuple(q.new_empty(shape, dtype=dtype) for shape in shapes)


def _max_sim_mean_fake(
    query, document, hard, query_mask, document_mask, hard_mask, logit_scale, scale, normalize,
    *needs,
):  # fmt: skip
    dtype = reference.accumulate_dtype(query.dtype)
    shapes = [query.shape, document.shape]
    shapes.append(torch.Size([0, 0, 0, query.shape[2]]) if hard is None else hard.shape)
    found = [(x[0] if need else 0, *x[1:]) for x, need in zip(shapes, needs, strict=False)]
    last = (1 if needs[-1] else 0,)
    return tuple(query.new_empty(shape, dtype=dtype) for shape in ((), *found, last))


def _unit_rows_forward_fake(parts):
    n = sum(x.shape[0] for x in parts)
    dtype = reference.accumulate_dtype(parts[0].dtype)
    return parts[0].new_empty(n, parts[0].shape[1]), parts[0].new_empty(n, dtype=dtype)


def _product_fake(a, b, a_turned, b_turned):
    return a.new_empty(a.shape[1 if a_turned else 0], b.shape[0 if b_turned else 1])


def _sigmoid_contrast_fake(p, bias, logit_bias, *needs):
    return _empty(p, (), *_gradients(p, *needs)[:2], (2,))


def _nce_fake(x, bank, index, scale, bias, log_normalizer, offset, need_x):
    dtype = reference.accumulate_dtype(x.dtype)
    b, d = x.shape
    return x.new_empty(b, dtype=dtype), x.new_empty(b if need_x else 0, d, dtype=dtype)


def _like_scores(dims: slice):
    """Sinkhorn's passes return a shape of the scores [n, m] in the accumulation dtype."""

    def fake(scores, scale, potential=None):
        return scores.new_empty(scores.shape[dims], dtype=reference.accumulate_dtype(scores.dtype))

    return fake


def _soft_cross_entropy_fake(scores, target, scale, factor, need_scores):
    n, m = scores.shape
    loss = scores.new_empty((), dtype=reference.accumulate_dtype(scores.dtype))
    return loss, scores.new_empty(n if need_scores else 0, m)


def _random_views_fake(
    images, offsets, sizes, parameters, size, kernel, mean, deviation, dtype, channels_last_in,
    channels_last_out,
):  # fmt: skip
    b, views, _ = parameters.shape
    c = mean.shape[0]
    shape = (size, size, c) if channels_last_out else (c, size, size)
    return images.new_empty(views, b, *shape, dtype=dtype)


_define(
    f"contrast_forward({SCHEMA}, Tensor? pivot, bool need_q, bool need_k) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _contrast_forward_fake,
)
_define(
    f"contrast_backward({SCHEMA}, Tensor rows, Tensor cols, Tensor weighted, Tensor? grad_loss, "
    "Tensor? grad_positive, Tensor? grad_col_loss, Tensor? grad_col_positive, bool need_q, "
    "bool need_k, bool need_own, bool need_scale) -> (Tensor, Tensor, Tensor, Tensor)",
    _contrast_backward_fake,
)
_define(
    f"contrast_mean({SCHEMA}, bool need_q, bool need_k, bool need_own, bool need_scale) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _contrast_mean_fake,
)
_define(
    f"sigmoid_contrast({SCHEMA}, float bias, Tensor? logit_bias, bool need_q, bool need_k) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _sigmoid_contrast_fake,
)
_define(
    "nested_contrast_mean(Tensor q, Tensor k, Tensor? logit_scale, float scale, int[] widths, "
    "float[] weights, bool need_q, bool need_k, bool need_scale) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _nested_contrast_mean_fake,
)
_define(
    "max_sim_mean(Tensor query, Tensor document, Tensor? hard, Tensor? query_mask, "
    "Tensor? document_mask, Tensor? hard_mask, Tensor? logit_scale, float scale, bool normalize, "
    "bool need_q, bool need_d, bool need_hard, bool need_scale) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _max_sim_mean_fake,
)
_define(
    "contrast_sums_(Tensor q, Tensor k, float scale, Tensor? logit_scale, Tensor? row_ids, "
    "Tensor? col_ids, Tensor? row_range, Tensor? col_range, int first, int tiles, int strip, "
    "int processors, Tensor(a!) row_part, Tensor(b!) col_part) -> ()",
    lambda *_: None,
)
_define("product(Tensor a, Tensor b, bool a_turned, bool b_turned) -> Tensor", _product_fake)
_define("unit_rows_forward(Tensor[] parts) -> (Tensor, Tensor)", _unit_rows_forward_fake)
_define(
    "unit_rows_backward(Tensor grad, Tensor[] parts, Tensor lengths) -> Tensor",
    lambda grad, parts, lengths: torch.empty_like(grad),
)
_define(
    "nce(Tensor x, Tensor bank, Tensor index, float scale, float bias, Tensor? log_normalizer, "
    "Tensor? offset, bool need_x) -> (Tensor, Tensor)",
    _nce_fake,
)
_define("sinkhorn_columns(Tensor scores, float scale) -> Tensor", _like_scores(slice(1, 2)))
_define(
    "sinkhorn_masses(Tensor scores, float scale, Tensor potential) -> Tensor",
    _like_scores(slice(1, 2)),
)
_define(
    "sinkhorn_assign(Tensor scores, float scale, Tensor potential) -> Tensor",
    _like_scores(slice(0, 2)),
)
_define(
    "sinkhorn(Tensor scores, Tensor? older, float scale, int iterations) -> Tensor",
    lambda scores, older, scale, iterations: _like_scores(slice(0, 2))(scores, scale),
)
_define(
    "soft_cross_entropy(Tensor scores, Tensor target, float scale, float factor, "
    "bool need_scores) -> (Tensor, Tensor)",
    _soft_cross_entropy_fake,
)
_define(
    "bank_update_(Tensor(a!) bank, Tensor index, Tensor x, float momentum) -> ()",
    lambda bank, index, x, momentum: None,
)
_define(
    "queue_push_(Tensor(a!) queue, Tensor(b!) pointer, Tensor rows, bool normalize=False) -> ()",
    lambda queue, pointer, rows, normalize=False: None,
)
_define(
    "random_views(Tensor images, Tensor? offsets, Tensor? sizes, Tensor parameters, int size, "
    "int kernel, Tensor mean, Tensor deviation, ScalarType dtype, bool channels_last_in, "
    "bool channels_last_out) -> Tensor",
    _random_views_fake,
)
_define(
    "random_views_(Tensor images, Tensor? offsets, Tensor? sizes, Tensor parameters, int kernel, "
    "Tensor mean, Tensor deviation, bool channels_last_in, bool channels_last_out, "
    "Tensor(a!) out) -> ()",
    lambda *arguments: None,
)
_define(
    "image_views_(Tensor image, Tensor parameters, int row, int kernel, Tensor mean, "
    "Tensor deviation, bool channels_last_out, Tensor(a!) out, int place) -> ()",
    lambda *arguments: None,
)
_define(
    "draw_views(Tensor chances, Tensor sizes, Tensor? middle, Tensor low, Tensor span, "
    "Tensor ratio, Tensor threshold, Tensor? shares) -> Tensor",
    lambda chances, *arguments: chances.new_empty(*chances.shape[1:], 13),
)
_define("large_pages_(Tensor(a!) x) -> ()", lambda x: None)
_define(
    "momentum_update_(Tensor(a!)[] target, Tensor[] online, float momentum, "
    "Tensor? momentum_tensor, Tensor(b!)? seed) -> ()",
    lambda target, online, momentum, momentum_tensor, seed: None,
)


# The module under kernels that launches the Triton kernels of an operator.
TRITON = {
    "contrast_forward": "contrast",
    "contrast_backward": "contrast",
    "contrast_mean": "contrast",
    "sigmoid_contrast": "sigmoid_contrast",
    "unit_rows_forward": "unit_rows",
    "unit_rows_backward": "unit_rows",
    "nce": "nce",
    "nested_contrast_mean": "nested_contrast",
    "max_sim_mean": "max_sim",
    "bank_update_": "bank",
    "sinkhorn_columns": "sinkhorn",
    "sinkhorn_masses": "sinkhorn",
    "sinkhorn_assign": "sinkhorn",
    "soft_cross_entropy": "soft_cross_entropy",
    "random_views": "random_views",
    "random_views_": "random_views",
}


def _first_tensor(arguments: tuple) -> torch.Tensor | None:
    """The first tensor, also inside a list of tensors."""
    for x in arguments:
        if isinstance(x, (list, tuple)):
            x = _first_tensor(x)
        if isinstance(x, torch.Tensor):
            return x
    return None


def _triton(name: str, module: str):
    """The Triton launcher of an operator; the first call imports Triton.

    Triton launches on the current device, which is made that of the tensors here and nowhere else.
    """

    def launch(*arguments):
        function = _of(name, getattr(import_module(f".kernels.{module}", __package__), name))
        with torch.cuda.device_of(_first_tensor(arguments)):
            return function(*arguments)

    return launch


if kernels.available():
    for _name, _module in TRITON.items():
        library.impl(_name, _triton(_name, _module), "CUDA")

SUFFIX = "dll" if sys.platform == "win32" else "so"
COMPILED = Path(__file__).parent / f"fastcl_ops.{SUFFIX}"
if COMPILED.exists():
    torch.ops.load_library(COMPILED)

ops = torch.ops.fastcl
