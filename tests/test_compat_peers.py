"""fastcl.compat against the other installed libraries: value, gradients, dtype, errors."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import DTYPES, SHAPES, TEMPERATURES, both, budgets, peer, rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_others_in_16_bits(dtype):
    ours, theirs = both("open_clip")
    tensors = rows(8, 5, dtype, "image_features", "text_features")
    tensors |= {
        k: torch.tensor(x, dtype=dtype) for k, x in (("logit_scale", 4), ("logit_bias", -2))
    }
    for name in ("ClipLoss", "SigLipLoss"):
        budgets(getattr(ours, name)(), getattr(theirs, name)(), tensors, 16)
    ours, theirs = both("info_nce")
    budgets(ours.InfoNCE(), theirs.InfoNCE(), rows(8, 5, dtype, "query", "positive_key"))
    ours, theirs = both("pytorch_metric_learning")
    labels = torch.arange(8) // 3
    for name in ("NTXentLoss", "SupConLoss"):
        losses = [getattr(m, name)() for m in (ours, theirs)]
        budgets(*(lambda x, f=f: f(x, labels) for f in losses), rows(8, 5, dtype, "x"))


@given(scale=st.floats(0.5, 10), bias=st.booleans(), dtype=DTYPES, **SHAPES)
def test_open_clip(n, d, seed, scale, bias, dtype):
    ours, theirs = both("open_clip")
    torch.manual_seed(seed)
    tensors = rows(n, d, dtype, "image_features", "text_features")
    tensors["logit_scale"] = torch.tensor(scale, dtype=dtype)
    if bias:
        tensors["logit_bias"] = torch.tensor(-1.5, dtype=dtype)
    budgets(ours.ClipLoss(), theirs.ClipLoss(), tensors, 4 * scale)
    tensors["logit_bias"] = torch.tensor(-1.5, dtype=dtype)
    budgets(ours.SigLipLoss(), theirs.SigLipLoss(), tensors)
    blocks = [
        lambda f=f, **x: f._loss(**x, negative_only=True)
        for f in (ours.SigLipLoss(), theirs.SigLipLoss())
    ]
    budgets(*blocks, tensors)


def test_open_clip_for_subclasses():
    ours, theirs = both("open_clip")
    tensors = [*rows(5, 4, torch.float64, "a", "b").values(), torch.tensor(3.0)]
    logits = [m.ClipLoss().get_logits(*tensors, 0.5) for m in (ours, theirs)]
    torch.testing.assert_close(*logits)
    assert set(ours.ClipLoss()(*tensors, output_dict=True)) == {"contrastive_loss"}
    cached = ours.ClipLoss(cache_labels=True)
    cached(*tensors)
    assert cached.prev_num_logits == 5 and torch.device("cpu") in cached.labels

    class Doubled(ours.ClipLoss):
        def get_logits(self, *args, **kwargs):
            return [2 * x for x in super().get_logits(*args, **kwargs)]

    images, texts, scale = tensors
    torch.testing.assert_close(Doubled()(*tensors), ours.ClipLoss()(images, texts, 2 * scale))
    captions = torch.randn(5, 3, 7), torch.randint(0, 7, (5, 3))
    results = [m.CoCaLoss(2.0, 1.0)(images, texts, *captions, scale) for m in (ours, theirs)]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss"])
@pytest.mark.parametrize("form", ["labels", "reference", "pairs", "triplets"])
@given(t=TEMPERATURES, classes=st.integers(1, 6), **SHAPES)
def test_pytorch_metric_learning(name, form, n, d, seed, t, classes):
    ours, theirs = both("pytorch_metric_learning")
    utils = peer("pytorch_metric_learning.utils.loss_and_miner_utils")
    torch.manual_seed(seed)
    labels = torch.randint(0, classes, (n,))
    tensors, extra = rows(n, d, torch.float64, "embeddings"), {}
    if form == "reference":
        tensors.update(rows(n, d, torch.float64, "ref_emb"))
        extra["ref_labels"] = labels if seed % 2 else torch.randint(0, classes, (n,))
    elif form != "labels":
        pairs = utils.get_all_pairs_indices(labels)
        if form == "pairs":
            extra["indices_tuple"] = tuple(x[::2] for x in pairs)
        else:
            extra["indices_tuple"] = utils.get_all_triplets_indices(labels)
    losses = [getattr(m, name)(temperature=t) for m in (ours, theirs)]
    calls = (lambda f=f, **x: f(labels=labels, **x, **extra) for f in losses)
    budgets(*calls, tensors, logit=1 / t)  # of unit rows


def test_pytorch_metric_learning_wrappers():
    ours, theirs = both("pytorch_metric_learning")
    distances = peer("pytorch_metric_learning.distances")
    reducers = peer("pytorch_metric_learning.reducers")
    a, b = rows(6, 4, torch.float64, "a", "b").values()
    for kwargs in (
        {},
        {"reducer": reducers.ThresholdReducer(low=0.5)},
        {"distance": distances.LpDistance()},
        {"distance": distances.DotProductSimilarity(normalize_embeddings=False)},
    ):
        for name in ("NTXentLoss", "SupConLoss"):
            values = [
                theirs.SelfSupervisedLoss(getattr(m, name)(**kwargs), symmetric)(a, b)
                for m in (ours, theirs)
                for symmetric in (True, False)
            ]
            torch.testing.assert_close(values[:2], values[2:])


# Rows of each batch and, where masked, how many of them are enqueued instead of contrasted.
BATCHES = st.lists(
    st.tuples(st.integers(1, 12), st.none() | st.integers(0, 12)), min_size=1, max_size=4
)


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss"])
@given(
    batches=BATCHES,
    size=st.integers(1, 12),
    classes=st.integers(1, 5),
    label_dtype=st.sampled_from([torch.int64, torch.int32, torch.float32]),
    t=TEMPERATURES,
    dtype=DTYPES,
    d=SHAPES["d"],
    seed=SHAPES["seed"],
)
def test_cross_batch_memory(name, batches, size, classes, label_dtype, t, dtype, d, seed):
    """Every step of a memory within the bound, its state bit for bit: full, wrapped, masked."""
    ours, theirs = both("pytorch_metric_learning")
    torch.manual_seed(seed)
    memories = [m.CrossBatchMemory(getattr(m, name)(t), d, size) for m in (ours, theirs)]
    for n, enqueued in batches:
        mask = None
        if enqueued is not None:
            mask = torch.randperm(n) < min(enqueued, size)
        n = n if enqueued is not None else min(n, size)
        tensors = rows(n, d, dtype, "x")
        labels = torch.randint(0, classes, (n,)).to(label_dtype)
        steps = [
            lambda x, m=m, y=labels, e=mask: copy.deepcopy(m)(x, y, enqueue_mask=e)
            for m in memories
        ]
        budgets(*steps, tensors)
        for memory in memories:
            memory(tensors["x"], labels, enqueue_mask=mask)
        states = [
            (m.embedding_memory, m.label_memory, m.curr_batch_idx, m.queue_idx, m.has_been_filled)
            for m in memories
        ]
        torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["none", "unpaired", "paired"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@given(t=TEMPERATURES, dtype=DTYPES, **SHAPES)
@settings(max_examples=10)
def test_info_nce(mode, reduction, n, d, seed, t, dtype):
    ours, theirs = both("info_nce")
    torch.manual_seed(seed)
    tensors = rows(n, d, dtype, "query", "positive_key")
    if mode != "none":
        shape = (n, 4, d) if mode == "paired" else (4, d)
        tensors["negative_keys"] = torch.randn(shape, dtype=dtype)
    mode = "unpaired" if mode == "none" else mode
    budgets(*(m.InfoNCE(t, reduction, mode) for m in (ours, theirs)), tensors)


def test_info_nce_errors():
    ours, theirs = both("info_nce")
    x, y = torch.randn(4, 3), torch.randn(2, 3)
    calls = [
        ((x[0], x), {}), ((x, x[0]), {}), ((x, y), {}), ((x, x[:, :2]), {}),
        ((x, x, x[0]), {}), ((x, x, y[:, :2]), {}), ((x, x, y), {"negative_mode": "paired"}),
        ((x, x, y[:, None]), {"negative_mode": "paired"}), ((x, x), {"reduction": "max"}),
    ]  # fmt: skip
    for args, kwargs in calls:
        messages = []
        for module in (ours, theirs):
            with pytest.raises(ValueError) as error:
                module.info_nce(*args, **kwargs)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


DIRECTIONS = (
    (("query_to_doc",), "joint"),
    (("query_to_doc", "doc_to_query"), "per_direction"),
    (("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"), "joint"),
)


@pytest.mark.parametrize("directions,partition", DIRECTIONS)
@pytest.mark.parametrize(
    "hardness", [None, "in_batch_negatives", "hard_negatives", "all_negatives"]
)
@pytest.mark.parametrize("columns", [2, 4])
def test_sentence_transformers(directions, partition, hardness, columns):
    ours, theirs = both("sentence_transformers")
    dot_score = peer("sentence_transformers.util").dot_score
    model = torch.nn.Sequential(torch.nn.Identity())
    options = {
        "directions": directions,
        "partition_mode": partition,
        "hardness_mode": hardness,
        "hardness_strength": 3.0,
    }
    tensors = rows(6, 5, torch.float64, *"abcd"[:columns])
    for more in ({}, {"similarity_fct": dot_score, "scale": 1.0}):
        losses = [m.MultipleNegativesRankingLoss(model, **options, **more) for m in (ours, theirs)]
        assert losses[0].get_config_dict() == losses[1].get_config_dict()
        forms = [
            lambda f=f, **x: f.compute_loss_from_embeddings(list(x.values()), None) for f in losses
        ]
        budgets(*forms, tensors)
        cached = [
            m.CachedMultipleNegativesRankingLoss(model, **options, **more) for m in (ours, theirs)
        ]
        forms = [
            lambda f=f, **x: f.calculate_loss([v.split(4) for v in x.values()]) for f in cached
        ]
        budgets(*forms, tensors)


@given(t=st.floats(0.1, 2), dtype=DTYPES, **SHAPES)
def test_solo(n, d, seed, t, dtype):
    ours, theirs = both("solo")
    torch.manual_seed(seed)
    pair = rows(n, d, dtype, "z1", "z2")
    mask = torch.rand(2 * n, 2 * n).gt(0.7).fill_diagonal_(False)
    for extra in (None, mask):
        forms = [
            lambda z1, z2, f=f, e=extra: f(z1, z2, t, e)
            for f in (ours.simclr_two_views_loss_func, theirs.simclr_loss_func)
        ]
        budgets(*forms, pair)
    queue = torch.randn(d, 7, dtype=torch.float64)
    for name, more in (("moco_loss_func", [queue]), ("nnclr_loss_func", [])):
        forms = [
            lambda z1, z2, f=f, q=more: f(z1, z2, *(x.to(z1.dtype) for x in q), t)
            for f in (getattr(ours, name), getattr(theirs, name))
        ]
        budgets(*forms, pair)
    sharp = t / 2 + 0.05
    for constant in (True, False):  # a queue, or rows that are trained
        tensors = pair if constant else pair | {"queue": queue.T.to(dtype)}
        forms = [
            lambda z1, z2, queue=queue.T, f=m.ressl_loss_func: (
                f(z1, z2, queue.to(z1.dtype), t, sharp) + 0 * z2.sum()
            )
            for m in (ours, theirs)
        ]
        budgets(*forms, tensors, logit=1 / sharp)
    for name in ("byol_loss_func", "simsiam_loss_func"):
        for simplified in (True, False):
            forms = [
                lambda z1, z2, f=f, s=simplified: f(z1, z2, s)
                for f in (getattr(ours, name), getattr(theirs, name))
            ]
            budgets(*forms, pair)
    targets = [x.double().softmax(1) for x in pair.values()]
    forms = [
        lambda z1, z2, f=m.swav_loss_func: f([z1, z2], [x.to(z1.dtype) for x in targets], t)
        for m in (ours, theirs)
    ]
    budgets(*forms, pair)
