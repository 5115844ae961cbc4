"""The raw operators: schema, fake kernel, and which kernel runs.

This is the only file that knows. PyTorch's dispatcher decides by device; the reference is the
fallback of every operator, so all of them work, trace and compile with nothing built. Raw
operators have no autograd: the functions over them own it.
"""

from importlib import import_module
from pathlib import Path

import torch

from . import composite, kernels, reference
from .kernels import info_nce_config

library = torch.library.Library("fastcl", "DEF")


def _define(schema: str, fake, fallback=reference) -> None:
    library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.split("(")[0]
    library.impl(name, getattr(fallback, name), "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastcl::{name}", fake, lib=library)


def _info_nce_forward_fake(
    q, k, scale, logit_scale, row_ids, col_ids, extra, pivot,
    symmetric, both, positives_in, unit, frozen,
):  # fmt: skip
    n, m, d = q.shape[0], k.shape[0], q.shape[1]
    dtype = reference.accumulate_dtype(q.dtype)
    return (
        q.new_empty(4, n, dtype=dtype),
        q.new_empty(4, m if both else 0, dtype=dtype),
        q.new_empty(0 if pivot is None else n, dtype=torch.int64),
        q.new_empty(n if frozen else 0, d, dtype=dtype),
    )


def _info_nce_backward_fake(
    grad_loss, grad_positive, grad_col_loss, grad_col_positive, q, k, scale, logit_scale,
    row_ids, col_ids, rows, cols, symmetric, positives_in, extra, unit, need_q, need_k,
):  # fmt: skip
    n, m, d = q.shape[0], k.shape[0], q.shape[1]
    dtype = reference.accumulate_dtype(q.dtype)
    return (
        q.new_empty(n if need_q or symmetric else 0, d, dtype=dtype),
        q.new_empty(m if need_k and not symmetric else 0, d, dtype=dtype),
    )


def _info_nce_mean_fake(
    q, k, scale, logit_scale, row_ids, col_ids, extra, unit, normalize, need_q, need_k, both=False
):
    dtype = reference.accumulate_dtype(q.dtype)
    n, m, d = q.shape[0], k.shape[0], q.shape[1]
    shapes = ((), (4, n), (n if need_q else 0, d), (m if need_k else 0, d), ())
    return tuple(q.new_empty(shape, dtype=dtype) for shape in shapes)


def _self_contrast_mean_fake(parts, scale, ids, positives_in, normalize, paired, need):
    dtype = reference.accumulate_dtype(parts[0].dtype)
    n, d = sum(x.shape[0] for x in parts), parts[0].shape[1]
    shapes = (), (4, n), (n if need else 0, d)
    return tuple(parts[0].new_empty(shape, dtype=dtype) for shape in shapes)


def _frozen_contrast_mean_fake(
    query, key, columns, scale, row_ids, col_ids, normalize, normalize_key, need
):
    dtype = reference.accumulate_dtype(query.dtype)
    n, d = query.shape
    return query.new_empty((), dtype=dtype), query.new_empty(n if need else 0, d, dtype=dtype)


def _unit_rows_forward_fake(parts):
    n = sum(x.shape[0] for x in parts)
    dtype = reference.accumulate_dtype(parts[0].dtype)
    return parts[0].new_empty(n, parts[0].shape[1]), parts[0].new_empty(n, dtype=dtype)


def _raw_info_nce_forward_fake(q, k, scale, logit_scale, row_ids, col_ids, both, positives_in):
    n, m = (sum(x.shape[0] for x in parts) for parts in (q, k))
    dtype = reference.accumulate_dtype(q[0].dtype)
    shapes = ((4, n), (4, m or n) if both else (4, 0), (n,), (m,))
    return tuple(q[0].new_empty(shape, dtype=dtype) for shape in shapes)


def _raw_info_nce_backward_fake(
    grad_loss, grad_col_loss, q, k, q_lengths, k_lengths, scale, logit_scale,
    row_ids, col_ids, rows, cols, positives_in, need_q, need_k,
):  # fmt: skip
    n, m, d = q_lengths.shape[0], k_lengths.shape[0], q[0].shape[1]
    shapes = ((n if need_q or not k else 0, d), (m if need_k and k else 0, d), ())
    return tuple(q_lengths.new_empty(shape) for shape in shapes)


def _sigmoid_contrast_fake(
    q, k, scale, logit_scale, bias, logit_bias, row_ids, col_ids, need_q, need_k, positives_in=True
):
    dtype = reference.accumulate_dtype(q.dtype)
    n, m, d = q.shape[0] if need_q else 0, k.shape[0] if need_k else 0, q.shape[1]
    return tuple(q.new_empty(shape, dtype=dtype) for shape in ((), (n, d), (m, d), (2,)))


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


_define(
    "info_nce_forward(Tensor q, Tensor k, float scale, Tensor? logit_scale, Tensor? row_ids, "
    "Tensor? col_ids, Tensor? extra, Tensor? pivot, bool symmetric, bool both, "
    "bool positives_in, bool unit, bool frozen) -> (Tensor, Tensor, Tensor, Tensor)",
    _info_nce_forward_fake,
)
_define(
    "info_nce_backward(Tensor? grad_loss, Tensor? grad_positive, Tensor? grad_col_loss, "
    "Tensor? grad_col_positive, Tensor q, Tensor k, float scale, Tensor? logit_scale, "
    "Tensor? row_ids, Tensor? col_ids, Tensor rows, Tensor cols, bool symmetric, "
    "bool positives_in, bool extra, bool unit, bool need_q, bool need_k) -> (Tensor, Tensor)",
    _info_nce_backward_fake,
)
_define(
    "raw_info_nce_forward(Tensor[] q, Tensor[] k, float scale, Tensor? logit_scale, "
    "Tensor? row_ids, Tensor? col_ids, bool both, bool positives_in) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _raw_info_nce_forward_fake,
    composite,
)
_define(
    "raw_info_nce_backward(Tensor? grad_loss, Tensor? grad_col_loss, Tensor[] q, Tensor[] k, "
    "Tensor q_lengths, Tensor k_lengths, float scale, Tensor? logit_scale, Tensor? row_ids, "
    "Tensor? col_ids, Tensor rows, Tensor cols, bool positives_in, bool need_q, bool need_k) "
    "-> (Tensor, Tensor, Tensor)",
    _raw_info_nce_backward_fake,
    composite,
)
_define(
    "info_nce_mean(Tensor q, Tensor k, float scale, Tensor? logit_scale, Tensor? row_ids, "
    "Tensor? col_ids, Tensor? extra, bool unit, bool normalize, bool need_q, bool need_k, "
    "bool both=False) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _info_nce_mean_fake,
    composite,
)
_define(
    "self_contrast_mean(Tensor[] parts, float scale, Tensor ids, bool positives_in, "
    "bool normalize, bool paired, bool need) -> (Tensor, Tensor, Tensor)",
    _self_contrast_mean_fake,
    composite,
)
_define(
    "frozen_contrast_mean(Tensor query, Tensor key, Tensor columns, float scale, Tensor? row_ids, "
    "Tensor? col_ids, bool normalize, bool normalize_key, bool need) -> (Tensor, Tensor)",
    _frozen_contrast_mean_fake,
    composite,
)
for _name, _fallback in (("sigmoid_contrast", reference), ("raw_sigmoid_contrast", composite)):
    _define(
        f"{_name}(Tensor q, Tensor k, float scale, Tensor? logit_scale, float bias, "
        "Tensor? logit_bias, Tensor? row_ids, Tensor? col_ids, bool need_q, bool need_k, "
        "bool positives_in=True) -> (Tensor, Tensor, Tensor, Tensor)",
        _sigmoid_contrast_fake,
        _fallback,
    )
_define(
    "info_nce_sums_(Tensor q, Tensor k, float scale, Tensor? logit_scale, Tensor? row_ids, "
    "Tensor? col_ids, Tensor? row_range, Tensor? col_range, int first, int tiles, int strip, "
    "int processors, Tensor(a!) row_part, Tensor(b!) col_part) -> ()",
    lambda *_: None,
)
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
    composite,
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
    "momentum_update_(Tensor(a!)[] target, Tensor[] online, float momentum, "
    "Tensor? momentum_tensor, Tensor(b!)? seed) -> ()",
    lambda target, online, momentum, momentum_tensor, seed: None,
)


# The module under kernels that launches the Triton kernels of an operator.
TRITON = {
    "info_nce_forward": "info_nce",
    "info_nce_backward": "info_nce",
    "info_nce_mean": "info_nce_mean",
    "raw_info_nce_backward": "raw_info_nce",
    "self_contrast_mean": "self_contrast",
    "frozen_contrast_mean": "frozen_contrast",
    "sigmoid_contrast": "sigmoid_contrast",
    "unit_rows_forward": "unit_rows",
    "unit_rows_backward": "unit_rows",
    "nce": "nce",
    "bank_update_": "bank",
    "sinkhorn_columns": "sinkhorn",
    "sinkhorn_masses": "sinkhorn",
    "sinkhorn_assign": "sinkhorn",
    "soft_cross_entropy": "soft_cross_entropy",
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
        function = getattr(import_module(f".kernels.{module}", __package__), name)
        with torch.cuda.device_of(_first_tensor(arguments)):
            return function(*arguments)

    return launch


if kernels.available():
    for _name, _module in TRITON.items():
        library.impl(_name, _triton(_name, _module), "CUDA")

COMPILED = Path(__file__).parent / "fastcl_ops.so"
if COMPILED.exists():
    torch.ops.load_library(COMPILED)

ops = torch.ops.fastcl


def mean_takes_gradient(q: torch.Tensor, k: torch.Tensor, scale, unit: bool, both: bool) -> bool:
    """Whether info_nce_mean spares a product over the forward and the backward one by one."""
    if both or not q.is_cuda:
        return q.device.type == "cpu"
    known = not isinstance(scale, torch.Tensor) and (q.requires_grad or k.requires_grad)
    need_k = k.requires_grad
    return known and kernels.available() and info_nce_config.keeps(q, k, scale, None, unit, need_k)
