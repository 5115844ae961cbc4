"""What bad input of the general contrast and of the losses beside it gets, and that none dies."""

import pytest
import torch

import fastcl.functional as F

A, B = torch.randn(2, 4, 3)
J, ONES = torch.arange(4), torch.ones(4)
LEVELS = torch.stack([J, J], 1)
META = torch.empty(4, 3, device="meta")
BAG = torch.randn(4, 2, 3)
NAN, INF = float("nan"), float("inf")


def own(**options):
    return lambda: F.contrast(A, B, **options)


def alone(**options):
    return lambda: F.contrast(A, **options)


BAD = {
    "rank": (lambda: F.contrast(A[0], A), ValueError, "query must have 2 dimensions"),
    "key of another width": (lambda: F.contrast(A, B[:, :2], labels=(J, J)), ValueError, "key"),
    "key of another dtype": (lambda: F.contrast(A, B.double()), TypeError, "key must have the dty"),
    "key elsewhere": (lambda: F.contrast(A, META), ValueError, "key must be on the device"),
    "sparse rows": (lambda: F.contrast(A.to_sparse(), B), TypeError, "query must be a dense"),
    "no rows": (lambda: F.contrast(A[:0], B[:0]), ValueError, "query must not be empty"),
    "no columns": (lambda: F.contrast(A, B[:0], labels=(J, J[:0])), ValueError, "key must not be"),
    "more columns": (lambda: F.contrast(A, BAG[0]), ValueError, "key must have as many rows"),
    "nothing to tell": (alone(), ValueError, "labels, targets or pairs must be given"),
    "two kinds": (own(labels=(J, J), pairs=(J, J, None)), ValueError, "one of labels, targets"),
    "positives": (own(positives="max"), ValueError, "positives must be one of mean, sum, got"),
    "reduction": (own(reduction="all"), ValueError, "reduction must be one of mean, sum, none"),
    "both alone": (alone(labels=J, both=True), ValueError, "both must be False where key is None"),
    "rows by columns": (
        lambda: F.contrast(A[:3], B, labels=(J[:3], J), both=True, reduction="none"),
        ValueError, "both takes as many columns as rows",
    ),
    "temperature 0": (own(temperature=0), ValueError, "temperature must be finite and above 0"),
    "temperature nan": (own(temperature=NAN), ValueError, "temperature must be .* got nan"),
    "temperature of text": (own(temperature="1"), TypeError, "temperature must be a number"),
    "one temperature of zero": (own(temperature=ONES[0] * 0), ValueError, "temperature .* got 0.0"),
    "one below": (own(temperature=-ONES[:1]), ValueError, "temperature must be finite and above 0"),
    "temperatures": (own(temperature=torch.ones(3)), ValueError, r"temperature must have shape \["),
    "a temperature of zero": (own(temperature=J.float()), ValueError, "temperature .* above 0, go"),
    "a temperature of nan": (own(temperature=NAN * ONES), ValueError, "temperature must be finite"),
    "infinite temperatures": (own(temperature=INF * ONES), ValueError, "temperature must be finit"),
    "whole temperatures": (own(temperature=J + 1), TypeError, "temperature must be floating"),
    "labels of one side": (own(labels=J), ValueError, "labels must be a pair of tensors"),
    "labels of two sides": (alone(labels=(J, J + 1)), ValueError, "labels must be one tensor"),
    "no labels": (own(labels=([0], J)), TypeError, "labels must be a tensor, got list"),
    "short labels": (own(labels=(J[:3], J)), ValueError, r"labels must have shape \[4\] or"),
    "short labels of columns": (own(labels=(J, J[:3])), ValueError, r"labels\[1\] must have shape"),
    "labels of floats": (own(labels=(ONES, J)), TypeError, "labels must be int64"),
    "labels elsewhere": (own(labels=(J.to("meta"), J)), ValueError, "labels must be on cpu"),
    "levels": (own(labels=(LEVELS, J)), ValueError, "as many levels for rows and columns"),
    "no level": (own(labels=(LEVELS[:, :0],) * 2), ValueError, "labels must have shape"),
    "level weights alone": (own(level_weights=ONES), ValueError, "level_weights must be None"),
    "level weights": (
        own(labels=(LEVELS, LEVELS), level_weights=ONES), ValueError, r"level_weights .* \[2\]",
    ),
    "negative level": (
        alone(labels=LEVELS, level_weights=-ONES[:2]), ValueError, "level_weights must not be neg",
    ),
    "targets of one side": (own(targets=A), ValueError, "targets must be a pair of tensors"),
    "no targets": (own(targets=(A.abs(), None)), TypeError, r"targets\[1\] must be a tensor"),
    "targets of other classes": (own(targets=(A.abs(), ONES[:, None])), ValueError, r"targets\[1"),
    "targets of a number": (own(targets=(torch.tensor(1.0),) * 2), ValueError, "targets must have"),
    "negative targets": (own(targets=(-A.abs(), A.abs())), ValueError, "targets must not be neg"),
    "nan targets": (own(targets=(A.abs(), NAN * A)), ValueError, r"targets\[1\] must not be neg"),
    "targets of nothing": (own(targets=(0 * A, 0 * A)), ValueError, "targets must share something"),
    "targets of itself": (alone(targets=torch.eye(4)), ValueError, "targets must share something"),
    "complex targets": (own(targets=(A.cfloat(),) * 2), TypeError, "targets must be real"),
    "sparse targets": (own(targets=(A.abs().to_sparse(), A)), TypeError, "targets must be a dense"),
    "targets elsewhere": (own(targets=(META, META)), ValueError, "targets must be on cpu, got met"),
    "one pair": (own(pairs=(J,)), ValueError, "pairs must be"),
    "pairs of floats": (own(pairs=(ONES, J, None)), TypeError, r"pairs\[0\] must be int64"),
    "pairs of two lengths": (own(pairs=(J, J[:3], None)), ValueError, r"pairs\[1\] must have shap"),
    "pairs of two dimensions": (own(pairs=(LEVELS, LEVELS, None)), ValueError, r"pairs\[0\] must"),
    "pairs of a number": (own(pairs=(J[0], J[0], None)), ValueError, r"pairs\[0\] must have shape"),
    "no pairs": (own(pairs=(J[:0], J[:0], None)), ValueError, "pairs must hold one pair at least"),
    "rows out of range": (own(pairs=(J + 1, J, None)), ValueError, r"pairs\[0\] .* 0 to 3, got 1"),
    "columns out of range": (own(pairs=(J, J - 1, None)), ValueError, r"pairs\[1\] .* got -1 to 2"),
    "negative pairs": (own(pairs=(J, J, -ONES)), ValueError, r"pairs\[2\] must not be negative"),
    "nan pairs": (own(pairs=(J, J, NAN * ONES)), ValueError, r"pairs\[2\] must not be negative"),
    "weights of pairs": (own(pairs=(J, J, ONES[:3])), ValueError, r"pairs\[2\] must have shape"),
    "row weights": (own(row_weight=ONES[:3]), ValueError, r"row_weight must have shape \[4\]"),
    "negative row": (own(row_weight=-ONES), ValueError, "row_weight must not be negative, got -1"),
    "infinite row weight": (own(row_weight=INF * ONES), ValueError, "row_weight must be finite"),
    "infinite level": (
        alone(labels=LEVELS, level_weights=INF * ONES[:2]), ValueError, "level_weights .* finite",
    ),
    "infinite pairs": (own(pairs=(J, J, INF * ONES)), ValueError, r"pairs\[2\] must be finite"),
    "nan row weight": (own(row_weight=NAN * ONES), ValueError, "row_weight must not be negative"),
    "whole row weights": (own(row_weight=J), TypeError, "row_weight must be floating point"),
    "row weights elsewhere": (own(row_weight=ONES.to("meta")), ValueError, "row_weight must be on"),
    "bias": (own(column_bias=ONES[:3]), ValueError, r"column_bias must have shape \[4\]"),
    "bias of one number": (own(column_bias=1.0), TypeError, "column_bias must be a tensor, got fl"),
    "smoothing": (own(label_smoothing=1.5), ValueError, "label_smoothing must be from 0 to 1, got"),
    "smoothing of nan": (own(label_smoothing=NAN), ValueError, "label_smoothing must be finite"),
    "smoothing and sum": (
        own(label_smoothing=0.1, positives="sum"), ValueError, "label_smoothing must be 0",
    ),
    "smoothing and margin": (own(label_smoothing=0.1, margin=0.1), ValueError, "label_smoothing"),
    "margin of nan": (own(margin=NAN), ValueError, "margin must be finite"),
    "margin of a tensor": (own(margin=torch.tensor(0.1)), TypeError, "margin must be a number"),
    "margin and targets": (own(margin=0.1, targets=(A, A)), ValueError, "targets"),
    "margin and positives": (own(margin=0.1, labels=(J // 2, J // 2)), ValueError, "margin and gu"),
    "margin and no positive": (own(margin=0.1, labels=(J, J + 1)), ValueError, "margin and guide"),
    "margin and levels": (own(margin=0.1, labels=(LEVELS, LEVELS)), ValueError, "margin and guide"),
    "margin and pairs": (
        own(margin=0.1, pairs=(J // 2, J, None)), ValueError, "margin and guide take one positive",
    ),
    "margin and a pair too few": (
        own(margin=0.1, pairs=(J[1:], J[1:], None)), ValueError, "pairs name more or none",
    ),
    "margin and a pair too many": (
        own(margin=0.1, pairs=(torch.cat([J, J[:1]]), torch.cat([J, J[1:2]]), None)),
        ValueError, "pairs name more or none",
    ),
    "guide of one side": (own(guide=A), ValueError, "guide must be a pair of tensors"),
    "guide of two sides": (alone(labels=J // 2, guide=(A, B)), ValueError, "guide must be one ten"),
    "short guide": (own(guide=(A, B[:3])), ValueError, r"guide\[1\] must have 4 rows on cpu"),
    "guide of two widths": (own(guide=(A, B[:, :2])), ValueError, r"guide\[1\] must have the widt"),
    "whole guide": (own(guide=(LEVELS, LEVELS)), TypeError, r"guide\[0\] must be float16"),
    "guide elsewhere": (own(guide=(META, META)), ValueError, r"guide\[0\] must have 4 rows on cpu"),
    "false negatives of a rank": (lambda: F.false_negatives(A, B[0]), ValueError, "key must have"),
    "false negatives alone": (lambda: F.false_negatives(A, None), ValueError, "labels|key"),
    "smoothed negatives": (
        lambda: F.info_nce(A, B, A, label_smoothing=0.1), ValueError, "label_smoothing must be 0",
    ),
    "smoothed duplicates": (
        lambda: F.info_nce(A, B, ids=J, duplicates="ignore", label_smoothing=0.1),
        ValueError, "label_smoothing must be 0",
    ),
    "smoothed CLIP": (
        lambda: F.clip(A, B, 1.0, ids=J, duplicates="ignore", label_smoothing=0.1),
        ValueError, "label_smoothing must be 0 where duplicates are ignored",
    ),
    "smoothing of CLIP": (lambda: F.clip(A, B, 1.0, label_smoothing=2), ValueError, "from 0 to 1"),
    "scale of CLIP": (lambda: F.clip(A, B, 0.0, label_smoothing=0.1), ValueError, "scale must be"),
    "bags": (lambda: F.mil_nce(A, B, temperature=0.1), ValueError, "keys must have 3 dimensions"),
    "bags of more rows": (
        lambda: F.mil_nce(A[:3], BAG, temperature=0.1), ValueError, r"keys must have shape \[3, po",
    ),
    "empty bags": (lambda: F.mil_nce(A, BAG[:, :0], temperature=0.1), ValueError, "keys must not"),
    "bags of a dtype": (
        lambda: F.mil_nce(A, BAG.double(), temperature=0.1), TypeError, "keys must have the dtype",
    ),
    "a bag's temperature": (lambda: F.mil_nce(A, BAG, temperature=-1.0), ValueError, "temperature"),
    "tau": (lambda: F.debiased(A, B, tau_plus=1.0), ValueError, "tau_plus must be from 0 to below"),
    "one debiased pair": (lambda: F.debiased(A[:1], B[:1]), ValueError, "z0 must have 2 rows"),
    "beta": (lambda: F.hcl(A, B, beta=-1.0), ValueError, "beta must not be negative, got -1"),
    "beta of text": (lambda: F.hcl(A, B, beta="1"), TypeError, "beta must be a number"),
    "q": (lambda: F.rince(A, B, q=1.5), ValueError, "q must be 1 at most, got 1.5"),
    "q of zero": (lambda: F.rince(A, B, q=0), ValueError, "q must be finite and above 0, got 0"),
    "lam": (lambda: F.rince(A, B, lam=0.0), ValueError, "lam must be finite and above 0"),
    "hard": (lambda: F.retrieval(A, B, A), ValueError, "hard must have 3 dimensions"),
    "hard of more rows": (lambda: F.retrieval(A[:3], B[:3], BAG), ValueError, "hard must have sha"),
    "guide and hard": (lambda: F.retrieval(A, B, BAG, guide=(A, B)), ValueError, "guide must hold"),
    "guide of hard": (
        lambda: F.retrieval(A, B, BAG, guide=(A, B, BAG[:, :1])), ValueError, r"guide\[2\] must ha",
    ),
    "guide of none": (lambda: F.retrieval(A, B, guide=(A, None)), TypeError, r"guide\[1\] must be"),
    "retrieval margin": (lambda: F.retrieval(A, B, margin=NAN), ValueError, "margin must be finit"),
    "no width": (lambda: F.matryoshka(A, B, widths=[]), ValueError, "widths must hold one width"),
    "one width": (lambda: F.matryoshka(A, B, widths=2), TypeError, "widths must be a sequence"),
    "one weight": (
        lambda: F.matryoshka(A, B, widths=[2], weights=1.0), TypeError, "weights must be a sequenc"
    ),
    "wide": (lambda: F.matryoshka(A, B, widths=[4]), ValueError, "widths must be 3 at most, got 4"),
    "width of zero": (lambda: F.matryoshka(A, B, widths=[0]), ValueError, "widths must be 1 or mo"),
    "weights of widths": (
        lambda: F.matryoshka(A, B, widths=[1, 2], weights=[1.0]), ValueError, "weights must be as",
    ),
    "negative width": (
        lambda: F.matryoshka(A, B, widths=[2], weights=[-1.0]), ValueError, "weights must not be n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_errors_come_before_anything_changes():
    """And what is no error has a value: the smallest input there is."""
    one = torch.ones(1, 1)
    for loss in (
        F.contrast(one, one), F.contrast(one, one, both=True, margin=0.0),
        F.contrast(one, labels=J[:1]), F.contrast(one, one, labels=(J[:1], J[1:2])),
        F.mil_nce(one, one[None], temperature=1.0), F.retrieval(one, one),
        F.matryoshka(one, one, widths=[1]),
    ):  # fmt: skip
        assert loss == 0
