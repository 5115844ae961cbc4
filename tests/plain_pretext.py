"""Losses of the pretext tasks in plain PyTorch, one sample at a time where that is clearer."""

import torch
import torch.nn.functional as F


def rotation(task, turned, label):
    return F.cross_entropy(task.classifier(task.backbone(turned)), label)


def jigsaw(task, tiles, label):
    columns = [task.backbone(tiles[:, i]) for i in range(tiles.shape[1])]
    return F.cross_entropy(task.classifier(torch.cat(columns, 1)), label)


def relative_patch(task, first, second, label):
    logits = task.classifier(torch.cat([task.backbone(first), task.backbone(second)], 1))
    return F.cross_entropy(logits, label)


def soft_label(bins, color):
    """Zhang et al. 2016: five nearest bins, a Gaussian of width 5, shares that sum to one."""
    distance = ((bins - color) ** 2).sum(1).sqrt()
    near = distance.argsort()[:5]
    share = torch.exp(-(distance[near] ** 2) / 50)
    z = torch.zeros(len(bins), dtype=bins.dtype)
    z[near] = share / share.sum()
    return z, near[0]


def colorization(task, lightness, color):
    maps = task.backbone(lightness)
    p = task.decoder(maps).log_softmax(1)
    b, _, h, w = p.shape
    step = color.shape[2] // h
    total = 0
    for i in range(b):
        for y in range(h):
            for x in range(w):
                place = color[i, :, step * y : step * (y + 1), step * x : step * (x + 1)]
                z, nearest = soft_label(task.bins, place.mean((1, 2)))
                total = total - task.weight[nearest] * (z * p[i, :, y, x]).sum()
    return total / (b * h * w)


def split_brain(task, lightness, color):
    one, two = task.backbone[0]((lightness - 50) / 25), task.backbone[1](color / 15)
    step = color.shape[2] // one.shape[2]
    small = F.avg_pool2d(color, step)
    distance = ((small[:, None] - task.bins[None, :, :, None, None]) ** 2).sum(2)
    light = (F.avg_pool2d(lightness, step)[:, 0] / 2).floor().long()
    return F.cross_entropy(task.decoder[0](one), distance.argmin(1)) + F.cross_entropy(
        task.decoder[1](two), light
    )


def inpainting(task, images, seen, weight):
    maps = F.adaptive_avg_pool2d(task.backbone(images * seen), task.start)
    flat = maps.flatten(2)
    across = torch.stack([flat[:, c] @ task.across.weight[c].T for c in range(flat.shape[1])], 1)
    filled = task.decoder(across.view_as(maps))
    channels = images.shape[1]
    return (weight * (filled - images) ** 2).sum() / (channels * weight.sum())


def temporal_order(task, tuples, label):
    features = torch.cat([task.backbone(tuples[:, i]) for i in range(3)], 1)
    return F.cross_entropy(task.classifier(features), label)


def time_contrastive(task, anchor, positive, negative):
    a, p, n = (
        F.normalize(task.projector(task.backbone(x)), dim=1) for x in (anchor, positive, negative)
    )
    return ((a - p).pow(2).sum(1) - (a - n).pow(2).sum(1) + task.margin).clamp(min=0).mean()
