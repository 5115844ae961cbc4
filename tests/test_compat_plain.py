"""fastcl.compat against plain lines of PyTorch: runs without the libraries."""

import pytest
import torch
import torch.nn.functional as F
from peers import budgets

from fastcl.compat import info_nce, lightly, open_clip, solo, supcontrast
from fastcl.functional.pairs import log_sum_by_row, matching_pairs, pair_products


def rows(n, d, *names):
    return {name: torch.randn(n, d, dtype=torch.float64) for name in names}


def nt_xent(out0, out1, t=0.5, decoupled=False):
    z = F.normalize(torch.cat([out0, out1]), dim=1)
    n = len(out0)
    s, partner = z @ z.T / t, torch.arange(2 * n).roll(n)
    positive = s[torch.arange(2 * n), partner]
    s = s.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    if decoupled:
        s = s.scatter(1, partner[:, None], -torch.inf)
    return (s.logsumexp(1) - positive).mean()


def clip(image, text, scale, bias):
    s, labels = scale * image @ text.T + bias, torch.arange(len(image))
    return (F.cross_entropy(s, labels) + F.cross_entropy(s.T, labels)) / 2


def siglip(image, text, scale, bias):
    sign = 2 * torch.eye(len(image), dtype=image.dtype) - 1
    return -F.logsigmoid(sign * (scale * image @ text.T + bias)).sum() / len(image)


def sup_contrast(features, mask, t=0.07, base=0.07, anchors="all"):
    n, views = features.shape[:2]
    z = torch.cat(features.unbind(1))
    s = z @ z.T / t
    off = 1 - torch.eye(n * views, dtype=s.dtype)
    weights = mask.to(s.dtype).repeat(views, views) * off
    log_p = s - s.masked_fill(off == 0, -torch.inf).logsumexp(1, keepdim=True)
    count = weights.sum(1)
    loss = -(weights * log_p).sum(1) / torch.where(count < 1e-6, 1, count)
    return (loss[:n] if anchors == "one" else loss).mean() * t / base


@pytest.mark.parametrize("temperature", [0.5, 0.1, -0.3])
def test_lightly(temperature):
    tensors = rows(9, 5, "out0", "out1")
    for ours, decoupled in ((lightly.NTXentLoss, False), (lightly.DCLLoss, True)):

        def plain(out0, out1, decoupled=decoupled):
            return nt_xent(out0, out1, temperature, decoupled)

        budgets(ours(temperature), plain, tensors)


def test_lightly_bank():
    loss = lightly.NTXentLoss(0.2, memory_bank_size=(7, 5))
    before = loss.memory_bank.bank.clone()
    a, b = (x.float().requires_grad_() for x in rows(4, 5, "a", "b").values())
    q, k = F.normalize(a, dim=1), F.normalize(b, dim=1)
    s = torch.cat([(q * k).sum(1, keepdim=True), q @ before.T], 1) / 0.2
    want = F.cross_entropy(s, torch.zeros(4, dtype=torch.long))
    got = loss(a, b)
    torch.testing.assert_close(got, want)
    ours, plain = (torch.autograd.grad(x, (a, b)) for x in (got, want))
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(loss.memory_bank.bank[:4], k.detach())
    loss(a, b)  # 4 more do not fit into 7: the last row is dropped and the front is next
    torch.testing.assert_close(loss.memory_bank.bank[4:], k.detach()[:3])
    assert int(loss.memory_bank.bank_ptr) == 0


def test_lightly_sup_con():
    a, b = rows(6, 4, "a", "b").values()
    torch.testing.assert_close(lightly.SupConLoss(0.5)(a, b), 0.5 * lightly.NTXentLoss(0.5)(a, b))
    labels = torch.tensor([0, 0, 1, 1, 2, 3])
    features = torch.stack([F.normalize(a, dim=1), F.normalize(b, dim=1)], 1)
    want = sup_contrast(features, labels[:, None] == labels, 0.5, 0.5)
    torch.testing.assert_close(lightly.SupConLoss(0.5, rescale=False)(a, b, labels), want)


def test_open_clip():
    tensors = rows(8, 5, "image_features", "text_features")
    tensors |= {"logit_scale": torch.tensor(4.0), "logit_bias": torch.tensor(-2.0)}
    tensors = {k: x.double() for k, x in tensors.items()}
    lengths = [x.norm(dim=1).max().item() for x in list(tensors.values())[:2]]
    largest = 4 * lengths[0] * lengths[1]
    budgets(open_clip.ClipLoss(), lambda **x: clip(*x.values()), tensors, largest)
    budgets(open_clip.SigLipLoss(), lambda **x: siglip(*x.values()), tensors)


def test_info_nce():
    tensors = rows(7, 5, "query", "positive_key")

    def plain(query, positive_key):
        s = F.normalize(query, dim=1) @ F.normalize(positive_key, dim=1).T / 0.1
        return F.cross_entropy(s, torch.arange(7))

    budgets(info_nce.InfoNCE(), plain, tensors)


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("kind", ["none", "labels", "soft"])
def test_supcontrast(mode, kind):
    features = {"features": F.normalize(torch.randn(6, 3, 5, dtype=torch.float64), dim=2)}
    labels, soft = torch.tensor([0, 0, 1, 1, 2, 3]), torch.rand(6, 6)
    options = {"none": {}, "labels": {"labels": labels}, "soft": {"mask": soft}}[kind]
    mask = {"none": torch.eye(6), "labels": labels[:, None] == labels, "soft": soft}[kind]
    loss = supcontrast.SupConLoss(0.2, mode)
    budgets(
        lambda features: loss(features, **options),
        lambda features: sup_contrast(features, mask, 0.2, 0.07, mode),
        features,
    )


def test_supcontrast_without_positives():
    """One view and labels that differ: nothing to attract, the loss is zero."""
    features = F.normalize(torch.randn(5, 1, 4), dim=2)
    assert supcontrast.SupConLoss()(features, torch.arange(5)).item() == 0
    with pytest.raises(ValueError, match="Cannot define both"):
        supcontrast.SupConLoss()(features, torch.arange(5), torch.eye(5))


def test_solo():
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 0])

    def plain(z):
        e = (F.normalize(z, dim=1) @ F.normalize(z, dim=1).T / 0.1).exp()
        same = labels[:, None] == labels
        negative = (e * ~same).sum(1)
        positive = (e * same.clone().fill_diagonal_(False)).sum(1)
        return -(positive / (positive + negative)).log().mean()

    budgets(lambda z: solo.simclr_loss_func(z, labels), plain, rows(8, 5, "z"))


def test_pairs():
    """All pairs of equal id, and the log-sum of their products, without a matrix."""
    row_ids, col_ids = torch.randint(0, 4, (9,)), torch.randint(0, 3, (7,))
    a, p = matching_pairs(row_ids, col_ids)
    want = torch.where(row_ids[:, None] == col_ids)
    assert torch.equal(a, want[0]) and torch.equal(p, want[1])
    q, k = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (9, 7))
    torch.autograd.gradcheck(lambda q, k: pair_products(q, k, a, p), (q, k))
    s = q @ k.T
    plain = torch.where(row_ids[:, None] == col_ids, s, -torch.inf).logsumexp(1)
    torch.testing.assert_close(log_sum_by_row(pair_products(q, k, a, p), a, 9), plain)


def test_errors_of_open_clip_name_its_arguments():
    x, scale = torch.randn(4, 3), torch.tensor(2.0)
    for name, more in (("ClipLoss", ()), ("SigLipLoss", (torch.tensor(-1.0),)),
                       ("DistillClipLoss", (x, x, scale))):  # fmt: skip
        loss = getattr(open_clip, name)()
        for images, texts, message in (
            (x[:0], x[:0], "image_features must not be empty"), (x, x[:, :2], "text_features must"),
            (x, x[:3], "text_features must have as many rows as image_features, 4, got 3"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                loss(images, texts, scale, *more)
    with pytest.raises(ValueError, match="dist_image_features must have as many rows"):
        loss(x, x, scale, x[:3], x[:3], scale)


PAIRED = {
    lightly.NTXentLoss: ("out0", "out1"), lightly.DCLLoss: ("out0", "out1"),
    lightly.DCLWLoss: ("out0", "out1"), lightly.DirectCLRLoss: ("out0", "out1"),
    lightly.MACLLoss: ("z0", "z1"), lightly.HypersphereLoss: ("z_a", "z_b"),
}  # fmt: skip


@pytest.mark.parametrize("loss", PAIRED)
def test_errors_of_lightly_name_its_arguments(loss):
    """PyTorch's distances of no row end the process in the backward."""
    (first, second), x = PAIRED[loss], torch.randn(4, 3)
    for a, b, message in (
        (x[:0], x[:0], f"{first} must not be empty"), (x, x[:, :2], f"{second} must have the wid"),
        (x, x[:3], f"{second} must have as many rows as {first}, 4, got 3"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            loss()(a, b)
    with pytest.raises(TypeError, match=f"{second} must have the dtype of {first}"):
        loss()(x, x.double())


def test_errors_of_what_is_no_pair():
    x = torch.randn(4, 2, 3)
    for features, options, message in (
        (x[:0], {}, "features must not be empty"), (x[:, :0], {}, "features must not be empty"),
        (x, {"mask": torch.ones(4, 3)}, r"mask must have shape \[4, 4\], got \[4, 3\]"),
        (x, {"mask": torch.ones(8, 8)}, r"mask must have shape \[4, 4\], got \[8, 8\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            supcontrast.SupConLoss()(features, **options)
    with pytest.raises(ValueError, match=r"output must have shape \[n, d\], got \[4, 2, 3\]"):
        lightly.NNMemoryBankModule((5, 3))(x)
    with pytest.raises(TypeError, match="key must be a tensor, got NoneType"):
        solo.moco_loss_func(x[:, 0], None, x[:, 1].T)
    with pytest.raises(ValueError, match="must have the same shape but got"):
        lightly.IBOTPlusPlusPatchLoss(3)(x[:3], x, torch.ones(3, 2))


def test_no_number_of_a_region_hides_another():
    """The first has no positive in the other view, and says nothing but that it is none."""
    views, masks = torch.randn(4, 1, 2, 3), torch.tensor([[[0, 1]], [[1, 2]]])
    views[0, 0, 0, 0] = torch.nan
    assert lightly.DetConBLoss(gather_distributed=False)(*views, *masks).isnan()
