"""Every operator in plain PyTorch, in the words of its paper.

These have the signatures of the raw operators, form whatever matrix is easiest to read, and are
both what the kernels are tested against and what runs where no kernel was built.
Rows are accumulated in float32, or in float64 for float64 rows.
"""

from .bank import bank_update_
from .common import accumulate_dtype, no_autocast
from .contrast import contrast_backward, contrast_forward, contrast_mean
from .contrast_sums import contrast_sums_
from .draw_views import draw_views
from .large_pages import large_pages_
from .max_sim import max_sim_mean
from .momentum import momentum_update_, stochastic_round
from .nce import nce
from .nested_contrast import nested_contrast_mean
from .product import product
from .queue import queue_push_
from .random_views import image_views_, random_views, random_views_
from .sigmoid_contrast import sigmoid_contrast
from .sinkhorn import sinkhorn, sinkhorn_assign, sinkhorn_columns, sinkhorn_masses
from .soft_cross_entropy import soft_cross_entropy
from .unit_rows import unit_rows_backward, unit_rows_forward

__all__ = [
    "accumulate_dtype", "bank_update_", "contrast_backward", "contrast_forward", "contrast_mean",
    "contrast_sums_", "draw_views", "image_views_", "large_pages_", "max_sim_mean",
    "momentum_update_", "nce", "nested_contrast_mean", "no_autocast", "product", "queue_push_",
    "random_views", "random_views_", "sigmoid_contrast", "sinkhorn", "sinkhorn_assign",
    "sinkhorn_columns", "sinkhorn_masses", "soft_cross_entropy", "stochastic_round",
    "unit_rows_backward", "unit_rows_forward",
]  # fmt: skip
