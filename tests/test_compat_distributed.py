"""The drop-in losses on two ranks: the library's own value and gradients."""

import importlib.util

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import spawn
from peers import peer

from fastcl.compat import lightly, open_clip, solo

WORLD, N, WIDTH = 2, 4, 5


def _rows(*names):
    """The rows of every rank, the same everywhere: [WORLD, N, WIDTH] each."""
    torch.manual_seed(3)
    return {k: torch.randn(WORLD, N, WIDTH, dtype=torch.float64) for k in names}


def _gradients(loss, rank, tensors, *more):
    own = [x[rank].clone().requires_grad_() for x in tensors.values()]
    value = loss(*own, *more)
    return value.detach(), *torch.autograd.grad(value, own)


def _nt_xent(out0, out1):
    return lightly.NTXentLoss()(out0.flatten(0, 1), out1.flatten(0, 1))


def _check_exact(rank: int) -> None:
    """Averaged over ranks, value and gradients are those of one process with all rows."""
    tensors = _rows("out0", "out1")
    whole = [x.clone().requires_grad_() for x in tensors.values()]
    want = _nt_xent(*whole)
    gradients = torch.autograd.grad(want, whole)
    value, *own = _gradients(lightly.NTXentLoss(gather_distributed=True), rank, tensors)
    dist.all_reduce(value)
    torch.testing.assert_close(value / WORLD, want.detach())
    for mine, full in zip(own, gradients, strict=True):
        torch.testing.assert_close(mine / WORLD, full[rank])
    alone = _gradients(lightly.NTXentLoss(), rank, tensors)[1]
    assert not torch.allclose(alone / WORLD, gradients[0][rank], rtol=1e-3)  # negative control


def _check_clip(rank: int) -> None:
    images, texts = (F.normalize(x, dim=2) for x in _rows("image", "text").values())
    tensors = {"image": images, "text": texts}
    scale = torch.tensor(5.0, dtype=torch.float64)
    whole = [x.flatten(0, 1).requires_grad_() for x in tensors.values()]
    full = torch.autograd.grad(open_clip.ClipLoss()(*whole, scale), whole)
    for local in (False, True):
        loss = open_clip.ClipLoss(local, True, rank=rank, world_size=WORLD)
        for mine, all_rows in zip(_gradients(loss, rank, tensors, scale)[1:], full, strict=True):
            torch.testing.assert_close(mine / WORLD, all_rows.view(WORLD, N, WIDTH)[rank])
    # Without the gradient through the gathered rows: 1 / world_size of it.
    loss = open_clip.ClipLoss(False, False, rank=rank, world_size=WORLD)
    mine = _gradients(loss, rank, tensors, scale)[1]
    torch.testing.assert_close(mine, full[0].view(WORLD, N, WIDTH)[rank])


INDEXES = torch.tensor([[0, 1, 0, 2], [2, 1, 2, 0]])


def _solo_simclr(z, indexes, rows, t):
    """Of some rows against all: the share of the positives in the sum over all others."""
    z = F.normalize(z.flatten(0, 1), dim=1)
    same = indexes.flatten()[:, None] == indexes.flatten()
    e = (z @ z.T / t).exp() * ~torch.eye(len(z), dtype=torch.bool)
    return -((e * same).sum(1) / e.sum(1)).log()[rows].mean()


def _solo_mocov3(q, k, rows, t):
    q, k = (F.normalize(x.flatten(0, 1), dim=1) for x in (q, k))
    loss = F.cross_entropy(q @ k.T / t, torch.arange(len(q)), reduction="none")
    return loss[rows].mean() * 2 * t


def _check_solo(rank: int) -> None:
    """solo-learn gathers wherever there are ranks. Each takes the mean over its own rows; the
    gradient of a gathered row is the sum of what all ranks send it."""
    z, key = (x.requires_grad_() for x in _rows("z", "key").values())
    own = torch.arange(WORLD * N).view(WORLD, N)
    losses = [_solo_simclr(z, INDEXES, rows, 0.3) for rows in own]
    mine = _gradients(lambda x: solo.simclr_loss_func(x, INDEXES[rank], 0.3), rank, {"z": z})
    (everyone,) = torch.autograd.grad(sum(losses), z)
    torch.testing.assert_close(mine, (losses[rank].detach(), everyone[rank]))
    # The keys of all ranks are constant, its own among them.
    loss = _solo_mocov3(z, key.detach(), own[rank], 0.3)
    mine = _gradients(lambda x: solo.mocov3_loss_func(x, key[rank], 0.3), rank, {"z": z})
    torch.testing.assert_close(mine, (loss.detach(), torch.autograd.grad(loss, z)[0][rank]))
    scores = F.normalize(z.detach(), dim=2)
    together = solo.sinkhorn(scores.flatten(0, 1), 3, 0.05).view_as(scores)
    torch.testing.assert_close(solo.SinkhornKnopp()(scores[rank]), together[rank])
    alone = solo.sinkhorn(scores[rank], 3, 0.05)
    assert not torch.allclose(alone, together[rank], rtol=1e-3)  # negative control


class _Smoothed:
    """What a user replaces, over any library's class."""

    def get_ground_truth(self, *args, **kwargs):
        return 0.9 * super().get_ground_truth(*args, **kwargs)


class _Squared:
    def get_logits(self, *args, **kwargs):
        return super().get_logits(*args, **kwargs) ** 2


class _Weighed:
    def _loss(self, *args, **kwargs):
        return super()._loss(*args, **kwargs) * (2 if kwargs.get("negative_only") else 3)


def _check_replaced(rank: int) -> None:
    """A subclass of a loss over several ranks is called for its part, as in the library."""
    theirs, tensors = peer("open_clip.loss"), _rows("image", "text")
    scale, bias = (torch.tensor(x, dtype=torch.float64) for x in (2.0, -1.0))
    for own in (_Smoothed, _Squared, _Weighed):
        for how in ("bidir", "shift", "reduce", "gather"):
            results = []
            for module in (open_clip, theirs):
                loss = type("Own", (own, module.SigLipLoss), {})
                loss = loss(rank=rank, world_size=WORLD, dist_impl=how)
                results.append(_gradients(loss, rank, tensors, scale, bias))
            torch.testing.assert_close(*results)
    theirs, tensors = peer("lightly.loss"), _rows("out0", "out1")
    results = [
        _gradients(type("Own", (_Weighed, m.DCLLoss), {})(gather_distributed=True), rank, tensors)
        for m in (lightly, theirs)
    ]
    torch.testing.assert_close(*results)
    results = []
    for module in (lightly, theirs):
        loss = module.NTXentLoss(gather_distributed=True)
        loss.cross_entropy = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        results.append(_gradients(loss, rank, tensors))
    torch.testing.assert_close(*results)


def _check_sentences(rank: int) -> None:
    theirs = peer("sentence_transformers.sentence_transformer.losses")
    from fastcl.compat import sentence_transformers

    tensors, model = (
        _rows("queries", "positives", "negatives"),
        torch.nn.Sequential(torch.nn.Identity()),
    )
    everything = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    for options in (
        {},
        {"directions": everything, "hardness_mode": "all_negatives", "hardness_strength": 2.0},
        {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    ):
        for name in ("MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"):
            for columns in (2, 3):
                some = dict(list(tensors.items())[:columns])
                results = []
                for module in (sentence_transformers, theirs):
                    loss = getattr(module, name)(model, gather_across_devices=True, **options)
                    results.append(_gradients(_of_embeddings(loss), rank, some))
                torch.testing.assert_close(*results)


def _check_guided(rank: int) -> None:
    """GISTEmbed, whose candidates and their guide's rows are gathered; the symmetric loss."""
    import test_compat_guided as guided

    tensors, judges = _rows(*"abc"), [x[rank] for x in _rows(*"xyz").values()]
    wide = {"temperature": 1.0, "gather_across_devices": True}
    relative = {"contrast_anchors": False, "margin_strategy": "relative", "margin": 0.3}
    for options in ({}, relative):
        for name in guided.NAMES:
            for columns in (2, 3):
                some = dict(list(tensors.items())[:columns])
                functions = guided.as_functions(name, judges[:columns], **wide, **options)
                torch.testing.assert_close(*(_gradients(f, rank, some) for _, f in functions))
    alone = next(guided.as_functions("GISTEmbedLoss", judges[:2], temperature=1.0))[1]
    gathered = next(guided.as_functions("GISTEmbedLoss", judges[:2], **wide))[1]
    a, b = (x[rank] for x in list(tensors.values())[:2])
    assert abs(alone(a, b) - gathered(a, b)) > 1e-3  # negative control
    names = "MultipleNegativesSymmetricRankingLoss", "CachedMultipleNegativesSymmetricRankingLoss"
    for name in names:
        results = []
        for module in guided.both("sentence_transformers"):
            with pytest.warns(DeprecationWarning):
                loss = getattr(module, name)(guided.Rows(), gather_across_devices=True)
            some = dict(list(tensors.items())[:2])
            results.append(_gradients(_of_embeddings(loss), rank, some))
        torch.testing.assert_close(*results)


def _of_embeddings(loss):
    if hasattr(loss, "calculate_loss"):
        return lambda *columns: loss.calculate_loss([x.split(3) for x in columns])
    return lambda *columns: loss.compute_loss_from_embeddings(list(columns), None)


def _summed(loss):
    """Of a teacher that has the mean of image and text for the image."""
    return lambda a, b: sum(loss(a, b, 3.0, (a + b) / 2, b, 2.0))


def _check_libraries(rank: int) -> None:
    """Every flag against the library itself."""
    theirs, tensors = peer("lightly.loss"), _rows("out0", "out1")
    for name in ("NTXentLoss", "DCLLoss", "DCLWLoss"):
        results = [
            _gradients(getattr(m, name)(gather_distributed=True), rank, tensors)
            for m in (lightly, theirs)
        ]
        torch.testing.assert_close(*results)
    theirs = peer("open_clip.loss")
    scale, bias = (torch.tensor(x, dtype=torch.float64) for x in (5.0, -2.0))
    for flags in ((False, False), (False, True), (True, False), (True, True)):
        results = [
            _gradients(m.ClipLoss(*flags, rank=rank, world_size=WORLD), rank, tensors, scale)
            for m in (open_clip, theirs)
        ]
        torch.testing.assert_close(*results)
        results = [
            _gradients(
                _summed(m.DistillClipLoss(*flags, rank=rank, world_size=WORLD)), rank, tensors
            )
            for m in (open_clip, theirs)
        ]
        torch.testing.assert_close(*results)
    for how in ("bidir", "shift", "reduce", "gather"):
        results = [
            _gradients(
                m.SigLipLoss(rank=rank, world_size=WORLD, dist_impl=how),
                rank, tensors, scale, bias,
            )
            for m in (open_clip, theirs)
        ]  # fmt: skip
        torch.testing.assert_close(*results)


def _check_exchange(rank: int) -> None:
    """What open_clip's subclasses import: the parts of its losses, with their gradients."""
    theirs, other = peer("open_clip.loss"), 1 - rank
    tensors = _rows("a", "b")
    weights = _rows("x", "y")
    weigh = [x[rank] for x in weights.values()]

    def weighed(function, *more):
        def value(*rows):
            found = function(*more, *rows)
            found = found if isinstance(found, tuple) else (found,)
            sides = [w.repeat(len(x) // N, 1) for w, x in zip(weigh, found, strict=False)]
            return sum((x * w).sum() for x, w in zip(found, sides, strict=True))

        return value

    for name, ways, count in (
        ("neighbour_exchange_with_grad", (other, other), 1),
        ("neighbour_exchange_bidir_with_grad", (other, other), 2),
    ):
        some = dict(list(tensors.items())[:count])
        results = [
            _gradients(weighed(getattr(m, name), *ways), rank, some) for m in (open_clip, theirs)
        ]
        torch.testing.assert_close(*results)
        plain = name.removesuffix("_with_grad")
        rows = [x[rank] for x in some.values()]
        torch.testing.assert_close(*(getattr(m, plain)(*ways, *rows) for m in (open_clip, theirs)))
    for flags in ((False, False), (False, True), (True, True)):
        results = []
        for module in (open_clip, theirs):

            def gathered(a, b, gather=module.gather_features, flags=flags):
                return gather(a, b, *flags, rank=rank, world_size=WORLD)

            results.append(_gradients(weighed(gathered), rank, tensors))
        torch.testing.assert_close(*results)
    with pytest.raises(ValueError, match="use_horovod must be False"):
        open_clip.gather_features(*(x[rank] for x in tensors.values()), use_horovod=True)


@pytest.mark.parametrize("check", [_check_exact, _check_clip, _check_solo])
def test_two_ranks(check, tmp_path):
    spawn(check, WORLD, tmp_path)


def test_two_ranks_of_the_libraries(tmp_path):
    if not all(importlib.util.find_spec(x) for x in ("lightly", "open_clip")):
        pytest.skip("lightly or open_clip is not installed: make test-peers")
    spawn(_check_libraries, WORLD, tmp_path)
    spawn(_check_exchange, WORLD, tmp_path)
    spawn(_check_replaced, WORLD, tmp_path)


def test_two_ranks_of_sentence_transformers(tmp_path):
    peer("sentence_transformers.sentence_transformer.losses")
    for check in (_check_sentences, _check_guided):
        spawn(check, WORLD, tmp_path)
