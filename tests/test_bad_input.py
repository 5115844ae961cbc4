"""Bad input gets an error that names the argument, its value and what was expected."""

import pytest
import torch

import fastcl.functional as F
from fastcl.contrast.node import row_losses
from fastcl.contrast.problem import problem
from fastcl.contrast.sigmoid import sigmoid_sum

A = torch.randn(4, 3)
IDS = torch.arange(4)

BAD = {
    "rank": (lambda: F.nt_xent(A[0], A), ValueError, r"z0 must have 2 dimensions .*\[3\]"),
    "rank of the second": (lambda: F.info_nce(A, A[None]), ValueError, r"key must have 2 dim"),
    "lengths": (lambda: F.info_nce(A, A[:3]), ValueError, "key must have as many.* 4, got 3"),
    "widths": (lambda: F.clip(A, A[:, :2], 1.0), ValueError, "text must have the width.*3, got 2"),
    "widths of the queue": (lambda: F.moco(A, A, A[:, :2]), ValueError, "width .* 3, got 2"),
    "dtypes": (lambda: F.dcl(A, A.double()), TypeError, "z1 must have the dtype of z0.*float64"),
    "devices": (lambda: F.nt_xent(A, A.to("meta")), ValueError, "z1 must be on the device .* meta"),
    "integers": (lambda: F.nt_xent(A.long(), A.long()), TypeError, "z0 must be float16.*int64"),
    "empty batch": (lambda: F.nt_xent(A[:0], A[:0]), ValueError, r"must not be empty.*\[0, 3\]"),
    "empty queue": (lambda: F.moco(A, A, A[:0]), ValueError, "queue must not be empty"),
    "empty width": (lambda: F.flat_nce(A[:, :0], A[:, :0]), ValueError, "must not be empty"),
    "zero temperature": (
        lambda: F.nt_xent(A, A, temperature=0), ValueError, "temperature must be .*above 0, got 0"
    ),
    "negative temperature": (
        lambda: F.info_nce(A, A, temperature=-0.1), ValueError, "temperature must.*got -0.1"
    ),
    "infinite temperature": (
        lambda: F.moco(A, A, A, temperature=float("inf")), ValueError, "temperature must be finite"
    ),
    "temperature not a number": (
        lambda: F.sup_con(A, IDS, temperature=float("nan")), ValueError, "temperature.*nan"
    ),
    "temperature of a wrong type": (
        lambda: F.nt_xent(A, A, temperature="hot"), TypeError, "temperature must be a number.*str"
    ),
    "base temperature": (
        lambda: F.sup_con(A, IDS, base_temperature=-1.0), ValueError, "base_temperature must"
    ),
    "labels of a wrong length": (
        lambda: F.sup_con(A, IDS[:2]), ValueError, r"labels must have shape \[4\], got \[2\]"
    ),
    "labels of a wrong dtype": (
        lambda: F.sup_con(A, IDS.float()), TypeError, "labels must be int64, got torch.float32"
    ),
    "queue with a gradient": (
        lambda: F.moco(A, A, A.clone().requires_grad_()), ValueError, "queue must not require"
    ),
    "mode": (
        lambda: F.info_nce(A, A, A, negative_mode="half"), ValueError, "paired, got 'half'"
    ),
    "future of cpc": (
        lambda: F.cpc(A[None, :3], A, A[None, :3]), ValueError, r"future must have shape .*4, d\]"
    ),
    "summary of dim": (
        lambda: F.dim_jsd(A[..., None], A[:, :2, None]), ValueError,
        r"summary must have shape \[4, 3, vectors\], got \[4, 2, 1\]",
    ),
    "weights of cpc": (
        lambda: F.cpc(A[None].repeat(2, 1, 1), A, A[None, :3]), ValueError,
        r"weight must have shape \[2, 3, 3\], got \[1, 3, 3\]",
    ),
    "reduction": (
        lambda: F.info_nce(A, A, reduction="max"), ValueError, "mean, sum, none, got 'max'"
    ),
    "paired shape": (
        lambda: F.info_nce(A, A, A, negative_mode="paired"), ValueError, r"\[4, m, 3\] where paired"
    ),
    "scale": (lambda: F.clip(A, A, -1.0), ValueError, "scale must be finite and above 0, got -1.0"),
    "scale of many elements": (
        lambda: F.clip(A, A, torch.ones(2)), ValueError, r"scale must have one element.*\[2\]"
    ),
    "scale of integers": (
        lambda: F.clip(A, A, torch.tensor(1)), TypeError, "scale must be floating point"
    ),
    "not a tensor": (lambda: F.nt_xent([[1.0]], A), TypeError, "z0 must be a tensor, got list"),
    "one pair": (lambda: F.dcl(A[:1], A[:1]), ValueError, "z0 must have 2 rows at least, got 1"),
    "ids for one side": (
        lambda: problem(A, A.clone(), scale=1.0, ids=(IDS, None)), ValueError, "ids must be given"
    ),
    "both with itself": (lambda: problem(A, scale=1.0, both=True), ValueError, "both must be"),
    "both with own": (
        lambda: problem(A, A.clone(), scale=1.0, own=A, both=True), ValueError, "both must be False"
    ),
    "own of a wrong length": (
        lambda: problem(A, A.clone(), scale=1.0, own=A[:3]), ValueError,
        "own must have as many.*4, got 3"
    ),
    "own of a wrong width": (
        lambda: problem(A, scale=1.0, own=A[:, :2]), ValueError, "own must have the width of q, 3"
    ),
    "own of a wrong dtype": (
        lambda: problem(A, scale=1.0, own=A.double()), TypeError, "own must have the dtype of q"
    ),
    "parts of two widths": (
        lambda: problem((A, A[:, :2]), scale=1.0), ValueError,
        r"q\[1\] must have the width of q\[0\]"
    ),
    "columns of a wrong dtype": (
        lambda: problem(A, A.double(), scale=1.0), TypeError, "k must have the dtype of q"
    ),
    "pivot": (
        lambda: row_losses(problem(A, scale=1.0), torch.ones(3)), ValueError,
        r"pivot must have shape"
    ),
    "bias": (
        lambda: sigmoid_sum(problem(A, A, scale=1.0), float("nan")), ValueError,
        "bias must be finite"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
