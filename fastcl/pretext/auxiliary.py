"""Pretext tasks beside another loss on the same backbone."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _check
from ..distributed import mean


class Auxiliary(nn.Module):
    """A main loss plus pretext tasks: ``main + sum_i weight_i * task_i(images)``.

    Args:
        tasks: By name; built around the backbone of the main loss.
        weights: By the same names, finite; 1 where not given.

    Raises:
        ValueError: No task, or a weight without a task.

    Sources: Zhai et al. 2019, "S4L: Self-Supervised Semi-Supervised Learning", equation 1; Gidaris
    et al. 2019, "Boosting Few-Shot Visual Learning with Self-Supervision", equation 4.
    """

    def __init__(
        self, tasks: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        weights = dict(weights or {})
        if not tasks:
            raise ValueError("tasks must hold one at least, got none")
        unknown = sorted(weights.keys() - tasks.keys())
        if unknown:
            raise ValueError(f"weights must be of {', '.join(tasks)}, got {', '.join(unknown)}")
        self.weights = {name: _check.finite(name, weights.get(name, 1.0)) for name in tasks}
        self.tasks = nn.ModuleDict(tasks)

    def forward(self, main: Tensor, images: Tensor) -> Tensor:
        """The sum; main is a scalar of any other loss, images are what the tasks take."""
        for name, task in self.tasks.items():
            main = main + self.weights[name] * task(images)
        return main


def prototype_logits(
    support: Tensor,  # [n, d]
    labels: Tensor,  # [n] int64
    query: Tensor,  # [m, d]
) -> Tensor:
    """Negative squared distances of queries to the mean support of each class, `[m, classes]`.

    Equal to ``-torch.cdist(query, stack([support[labels == c].mean(0) for c in classes]))**2``.

    Raises:
        ValueError: A label from 0 to the highest that has no support.

    Source: Snell et al. 2017, "Prototypical Networks for Few-shot Learning", equations 1 and 2.
    """
    _check.rows("support", support)
    _check.rows("query", query, ("support", support))
    _check.vector("labels", labels, len(support), support.device, integer=True)
    member = F.one_hot(labels).to(support.dtype)
    count = member.sum(0)
    if (count == 0).any():
        raise ValueError("labels must have support for every class from 0 to the highest")
    prototypes = (member.T @ support) / count[:, None]
    return -(query[:, None] - prototypes).square().sum(2)


class SemiSupervised(nn.Module):
    """Labels of a few images, and a pretext task on all of them (S4L).

        loss = cross_entropy(labelled) + weight * task(labelled and unlabelled)

    Args:
        backbone: Maps images to features `[b, width]`.
        task: A pretext task around the same backbone.
        width: Features of the backbone.
        classes: Of the labels.
        weight: Of the task.

    Source: Zhai et al. 2019, "S4L: Self-Supervised Semi-Supervised Learning", equation 1.
    """

    def __init__(
        self, backbone: nn.Module, task: nn.Module, *, width: int, classes: int, weight: float = 1.0
    ) -> None:
        super().__init__()
        _check.count("classes", classes)
        self.backbone = backbone
        self.classifier = nn.Linear(width, classes)
        self.auxiliary = Auxiliary({"task": task}, {"task": weight})

    def forward(self, labelled: Tensor, labels: Tensor, unlabelled: Tensor) -> Tensor:
        logits = self.classifier(self.backbone(labelled))
        main = mean(F.cross_entropy(logits, labels, reduction="none"))
        return self.auxiliary(main, torch.cat([labelled, unlabelled]))


class FewShot(nn.Module):
    """Episodes of a prototypical network, and a pretext task on all their images.

        loss = cross_entropy(query against prototypes of support) + weight * task(all images)

    Args:
        backbone: Maps images to features `[b, width]`.
        task: A pretext task around the same backbone.
        weight: Of the task.

    Source: Gidaris et al. 2019, "Boosting Few-Shot Visual Learning with Self-Supervision",
    equation 4.
    """

    def __init__(self, backbone: nn.Module, task: nn.Module, *, weight: float = 1.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.auxiliary = Auxiliary({"task": task}, {"task": weight})

    def forward(
        self, support: Tensor, support_labels: Tensor, query: Tensor, query_labels: Tensor
    ) -> Tensor:
        images = torch.cat([support, query])
        z = self.backbone(images)
        logits = prototype_logits(z[: len(support)], support_labels, z[len(support) :])
        main = mean(F.cross_entropy(logits, query_labels, reduction="none"))
        return self.auxiliary(main, images)
