"""Losses over scores of prototypes as cases of `benchmarks.migration`."""

from collections.abc import Callable

import torch

from .migration_case import Inputs, rows

PROTOTYPES = 3000  # of SwAV on ImageNet
WIDE = 65536  # of DINO and iBOT, the default of every library


def scores(n: int) -> Inputs:
    return {k: (10 * rows(n, PROTOTYPES)).requires_grad_() for k in ("scores0", "scores1")}


def swav(module, n):
    loss = module.SwaVLoss()
    return lambda scores0, scores1: loss([scores0, scores1], [])


def dino(module, n):
    loss = module.DINOLoss(WIDE)

    def function(**views):
        loss.center.zero_()  # every call begins with the same one
        sides = ([x for k, x in views.items() if k.startswith(s)] for s in ("teacher", "student"))
        return loss(*sides)

    return function


def distilled(n: int) -> Inputs:
    teacher = {f"teacher{v}": rows(n, WIDE) * 10 for v in (0, 1)}
    student = {f"student{v}": (rows(n, WIDE) * 10).requires_grad_() for v in range(4)}
    return teacher | student


def patches(name: str) -> Callable:
    """16 patches of every image, a quarter of them masked where the loss is of all."""

    def build(module, n):
        loss = getattr(module, name)(WIDE)
        masked = torch.ones(n, 4, 4, dtype=torch.bool)
        if name == "IBOTPlusPlusPatchLoss":
            masked[:, 1:] = False

        def function(teacher, student):
            loss.center.center.zero_()  # every call begins with the same one
            return loss(teacher, student, masked)

        return function

    return build


def of_patches(n: int) -> Inputs:
    student = (rows(16 * n, WIDE) * 10).requires_grad_()
    return {"teacher": rows(16 * n, WIDE) * 10, "student": student}


def two_crops(module, n):
    loss = module.DINOLoss(WIDE, 0.04, 0.07, 30, 100)

    def function(student, teacher):
        loss.center.zero_()
        return loss(student, teacher)

    return function


def two_crops_scores(n: int) -> Inputs:
    student = (rows(2 * n, WIDE) * 10).requires_grad_()
    return {"student": student, "teacher": rows(2 * n, WIDE) * 10}
