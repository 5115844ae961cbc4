"""Mean contrast of rows with each other and its gradient: the composite in fewer launches.

What the ids of a tile span is found once for both directions, and the gradient of the unit rows
stays in float32 until it is that of the raw ones.
"""

import torch

from .. import composite
from . import info_nce_common as common
from . import info_nce_config as config
from .info_nce_gradient import problem_gradients
from .info_nce_statistics import finish, fixed_sums, positive_sums
from .unit_rows import project, unit_rows_forward


def self_contrast_mean(parts, scale, ids, positives_in, normalize, paired, need):
    """`composite.self_contrast_mean`."""
    if not config.supported(parts[0]):
        return composite.self_contrast_mean(
            parts, scale, ids, positives_in, normalize, paired, need
        )
    z, lengths = unit_rows_forward(parts) if normalize else (torch.cat(parts), None)
    p = common.problem(z, z, ids, ids, scale, None, True)
    sums, _ = fixed_sums(p, None, True)
    rows, _ = finish(p, sums, positive_sums(p), None, positives_in, True)
    loss, dz = rows[0], common.empty(z, 0, z.shape[1])
    grad = torch.full_like(loss, 1 / len(z))
    if not paired:
        alone = rows[3] == 0
        loss, grad = (torch.where(alone, 0, x) for x in (loss, grad))
    if need:
        grads = grad, None, None, None
        dz, _ = problem_gradients(p, grads, rows, None, positives_in, False, True, True, False)
        if normalize:
            dz = project(dz, parts, lengths, None)
    return loss.mean(), rows, dz
