"""What pretext tasks refuse, and what they save."""

import copy

import pytest
import torch
from pretext_tasks import TASKS, maps, vectors
from torch import nn

from fastcl import pretext
from fastcl.pretext import base, temporal

X = torch.rand(2, 3, 16, 16)
BAD = {
    "no_tensor": (lambda: task("rotation")([1]), TypeError, "images must be a tensor, got list"),
    "rank": (lambda: task("rotation")(X[0]), ValueError, "images must have 4 dimensions"),
    "integers": (lambda: task("jigsaw")(X.long()), TypeError, "images must be float16"),
    "oblong": (
        lambda: task("rotation")(X[..., :9]),
        ValueError,
        "images must be square, got 16 x 9",
    ),
    "empty": (lambda: task("rotation")(X[:0]), ValueError, "images must not be empty"),
    "grey": (lambda: task("colorization")(X[:, :1]), ValueError, "must have 3 channels, got 1"),
    "grey_two": (lambda: task("split_brain")(X[:, :1]), ValueError, "must have 3 channels, got 1"),
    "tiny": (
        lambda: task("jigsaw")(X[..., :5, :5]),
        ValueError,
        "6 pixels to a side at least, got 5",
    ),
    "patch": (lambda: task("relative_patch")(X[..., :4, :4]), ValueError, "5 pixels to a side"),
    "size": (lambda: task("inpainting")(X[..., :8, :8]), ValueError, "must have size 16, got 8"),
    "frames": (lambda: task("temporal_order")(torch.rand(2, 4, 3, 8, 8)), ValueError, "5 frames"),
    "short": (
        lambda: task("time_contrastive")(torch.rand(5, 3, 8, 8)),
        ValueError,
        "6 frames at least",
    ),
    "views": (
        lambda: task("time_contrastive")(torch.rand(3, 9, 3, 8, 8)),
        ValueError,
        "1 or 2 views",
    ),
    "grid": (
        lambda: pretext.Jigsaw(vectors(3), width=6, grid=4),
        ValueError,
        "grid must be one of 2, 3",
    ),
    "gray": (
        lambda: pretext.Jigsaw(vectors(3), width=6, gray=2),
        ValueError,
        "gray must be from 0 to 1",
    ),
    "shift": (lambda: pretext.Jigsaw(vectors(3), width=6, shift=-1), ValueError, "shift must be"),
    "count": (
        lambda: pretext.permutation_set(3, 7),
        ValueError,
        "count must be from 2 to 6, got 7",
    ),
    "tiles": (
        lambda: pretext.permutation_set(10, 7),
        ValueError,
        "tiles must be from 2 to 9, got 10",
    ),
    "width": (lambda: pretext.Rotation(vectors(3), width=0), ValueError, "width must be 1 or more"),
    "hole": (
        lambda: pretext.Inpainting(maps(3), width=6, size=16, hole="all"),
        ValueError,
        "hole must",
    ),
    "odd": (
        lambda: pretext.Inpainting(maps(3), width=6, size=18),
        ValueError,
        "multiple of 4, got 18",
    ),
    "margin": (
        lambda: pretext.TimeContrastive(vectors(3), width=6, margin=0),
        ValueError,
        "margin must be",
    ),
    "counts": (lambda: pretext.SkipGram([1, 2], width=3), TypeError, "weights must be"),
    "weights": (
        lambda: pretext.Auxiliary({"a": nn.Identity()}, {"b": 1}),
        ValueError,
        "weights must be of a",
    ),
    "none": (lambda: pretext.Auxiliary({}), ValueError, "tasks must hold one"),
    "support": (
        lambda: pretext.prototype_logits(torch.rand(2, 3), torch.tensor([0, 2]), torch.rand(1, 3)),
        ValueError,
        "support for every class",
    ),
    "maps": (
        lambda: base.feature_maps(nn.Flatten(0), X),
        ValueError,
        r"backbone must return \[b, width",
    ),
}


def task(name):
    return TASKS[name][0]()


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_state_dict_round_trip():
    for build, _ in TASKS.values():
        one, two = build(), build()
        two.load_state_dict(copy.deepcopy(one.state_dict()))
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)
        )


def test_backbones_of_other_libraries_give_maps():
    class Timm(nn.Module):
        def forward_features(self, x):
            return x[:, :, ::4, ::4]

    assert base.feature_maps(Timm(), X).shape == (2, 3, 4, 4)
    assert base.feature_maps(vectors(3), X).shape == (2, 6, 1, 1)
    assert len(temporal.TUPLES) == 3
