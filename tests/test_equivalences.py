"""One formula under many names: losses that must be equal, in value and gradient, and the values
of the original repositories at 16 pairs of width 32."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain import inva_spread
from torch.nn.functional import cross_entropy

import fastcl.functional as F
from fastcl.contrast.problem import problem
from fastcl.contrast.sigmoid import sigmoid_sum

T = 0.2


def _views(n=16, d=32, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, n, d, generator=generator, dtype=torch.float64)
    return [(x + 0.8 * e).requires_grad_() for e in noise]


def _same(ours, theirs, views, factor=1.0):
    """Value and gradient of ours are those of theirs times a factor."""
    torch.testing.assert_close(ours, theirs * factor, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(ours, views, allow_unused=True),
        torch.autograd.grad(theirs, views, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b * factor, rtol=1e-11, atol=1e-12)


seeds = given(n=st.integers(2, 20), d=st.integers(1, 16), seed=st.integers(0, 999))


@seeds
def test_sup_con_of_two_views_is_nt_xent(n, d, seed):
    views = _views(n, d, seed)
    z, labels = torch.cat(views), torch.arange(n).repeat(2)
    theirs = F.nt_xent(*views, temperature=T)
    _same(F.sup_con(z, labels, temperature=T), theirs, views)
    # SupContrast's default multiplies by temperature / 0.07.
    ours = F.sup_con(torch.cat(views), labels, temperature=T, base_temperature=0.07)
    _same(ours, F.nt_xent(*views, temperature=T), views, T / 0.07)


@seeds
def test_the_two_blocks_of_google_and_consert_are_twice_nt_xent(n, d, seed):
    views = _views(n, d, seed)
    a, b = (F.unit_rows(z) for z in views)
    masked = [x @ x.T / T - 1e9 * torch.eye(n) for x in (a, b)]
    blocks = [torch.cat([a @ b.T / T, masked[0]], 1), torch.cat([b @ a.T / T, masked[1]], 1)]
    theirs = sum(cross_entropy(s, torch.arange(n)) for s in blocks)
    _same(theirs, F.nt_xent(*views, temperature=T), views, 2)


@seeds
def test_sim_cse_is_info_nce_is_ranking(n, d, seed):
    views = _views(n, d, seed)
    _same(F.sim_cse(*views, temperature=T), F.info_nce(*views, temperature=T), views)
    scores = 20 * F.unit_rows(views[0]) @ F.unit_rows(views[1]).T  # MultipleNegativesRankingLoss
    _same(F.sim_cse(*views, temperature=1 / 20), cross_entropy(scores, torch.arange(n)), views)


@seeds
def test_hard_negatives_without_weight_are_more_keys(n, d, seed):
    views = _views(n, d, seed, count=3)
    q, k, hard = (F.unit_rows(z) for z in views)
    s = torch.cat([q @ k.T, q @ hard.T], 1) / T
    _same(F.sim_cse(*views, temperature=T), cross_entropy(s, torch.arange(n)), views)


@seeds
def test_moco_v3_is_info_nce_times_twice_the_temperature(n, d, seed):
    views = _views(n, d, seed)
    q, k = views
    once = F.moco_v3(q, q, k, k, temperature=T)
    _same(once, F.info_nce(q, k.detach(), temperature=T), views[:1], 4 * T)


@seeds
def test_clip_is_the_mean_of_both_directions(n, d, seed):
    views = _views(n, d, seed)
    both = F.info_nce(*views, temperature=T) + F.info_nce(*views[::-1], temperature=T)
    _same(F.clip(*views, 1 / T), both, views, 0.5)


@seeds
def test_a_queue_is_a_bank_of_negatives(n, d, seed):
    views, queue = _views(n, d, seed), F.unit_rows(_views(7, d, seed + 1)[0].detach())
    negatives = F.info_nce(views[0], views[1].detach(), queue, temperature=T)
    _same(F.moco(*views, queue, temperature=T), negatives, views[:1])


@seeds
def test_full_softmax_over_a_bank_is_moco_without_the_own_entry(n, d, seed):
    x, bank = _views(n, d, seed)
    bank = F.unit_rows(bank.detach())
    index = torch.tensor([n // 2])
    rest = bank[torch.arange(n) != n // 2]
    theirs = F.moco(x[index], bank[index], rest, temperature=T)
    _same(F.inst_disc(x[index], bank, index, temperature=T), theirs, [x])


@seeds
def test_flat_nce_has_the_value_of_nt_xent_and_the_gradient_of_dcl(n, d, seed):
    views = _views(n, d, seed)
    ours = F.flat_nce(*views, temperature=T)
    torch.testing.assert_close(ours, F.nt_xent(*views, temperature=T))
    gradients = (torch.autograd.grad(x, views) for x in (ours, F.dcl(*views, temperature=T)))
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@seeds
def test_weights_of_equal_pairs_are_one(n, d, seed):
    """DCLW of pairs that agree equally well is DCL."""
    z0 = _views(n, d, seed)[0]
    views = [z0, (3 * z0).detach().requires_grad_()]
    _same(F.dclw(*views, temperature=T), F.dcl(*views, temperature=T), views)


@seeds
def test_byol_is_simsiam(n, d, seed):
    p, z = _views(n, d, seed), _views(n, d, seed + 1)
    _same(F.byol(*p, *z) - 4, F.simsiam(*p, *z), p, 4)


@seeds
def test_inva_spread_is_nt_xent_and_a_penalty_with_a_constant_second_factor(n, d, seed):
    views = _views(n, d, seed)
    z = F.unit_rows(*views)
    s = (z @ z.detach().T / T).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    log_p = s.log_softmax(1)
    rows, partner = torch.arange(2 * n), torch.arange(2 * n).roll(n)
    negative = torch.ones_like(s, dtype=torch.bool)
    negative[rows, rows] = negative[rows, partner] = False
    spread = torch.log1p(-log_p.exp().where(negative, 0)).sum(1).mean()
    theirs = -log_p[rows, partner].mean() - spread
    nt_xent = F.nt_xent(*views, temperature=T)
    torch.testing.assert_close(theirs + spread, nt_xent)
    _same(F.inva_spread(*views, temperature=T), theirs, views)


@seeds
def test_cpc_of_identity_is_info_nce_of_raw_rows(n, d, seed):
    future, context = _views(n, d, seed)
    ours = F.cpc(future[None], context, torch.eye(d).double()[None])
    _same(ours, cross_entropy(future @ context.T, torch.arange(n)), [future, context])


@seeds
def test_dim_without_leak_and_with_one_location_is_info_nce_of_raw_rows(n, d, seed):
    local, summary = _views(n, d, seed)
    ours = F.dim_nce(local[..., None], summary[..., None], self_logit=-math.inf)
    _same(ours, cross_entropy(summary @ local.T, torch.arange(n)), [local, summary])


@seeds
def test_dim_jsd_is_the_sigmoid_contrast(n, d, seed):
    """For two samples positives and negatives are as many: SigLIP's sum with scale 1."""
    local, summary = _views(2, d, seed)
    ours = F.dim_jsd(local[..., None], summary[..., None])
    pairs = sigmoid_sum(
        problem(summary, local, scale=1.0, ids=torch.arange(2), unit=False, normalize=False)
    )
    _same(ours + 2 * math.log(2), pairs, [local, summary], 0.5)


@seeds
def test_swav_of_hard_assignments_is_cross_entropy(n, d, seed):
    """With scores far apart, as many samples as prototypes and a permutation as the best match."""
    views = _views(n, n, seed)
    order = torch.randperm(n)
    sharp = 1000 * torch.eye(n).double()[order]
    ours = F.swav([sharp, views[0]], assign=1, temperature=T)
    _same(ours, cross_entropy(views[0] / T, order), views[:1])


def test_cmc_of_one_view_is_twice_nce():
    x, bank = _views(16, 8)
    bank, index = F.unit_rows(bank.detach()), F.noise_indices(torch.arange(16), 16, 9)
    ours = F.cmc(x, x, bank, bank, index, normalizer_l=3.0, normalizer_ab=3.0)
    _same(ours, F.nce(x, bank, index, normalizer=3.0), [x], 2)


def test_barlow_twins_of_white_features_is_zero():
    z = torch.linalg.qr(torch.randn(64, 9).double())[0]
    z = z - z.mean(0)
    white = z @ torch.linalg.cholesky(torch.linalg.inv(z.T @ z / 64))
    assert F.barlow_twins(white, white) < 1e-6
    assert F.barlow_twins(white, white.flip(1)) > 1
    assert F.barlow_twins(5 * white + 2, white) < 1e-6


@pytest.mark.parametrize("n", [64, 9])
def test_vicreg_of_one_view_is_what_its_features_lack(n):
    """Nothing where they are white; with fewer rows than features the covariance cannot be."""
    z = torch.linalg.qr(torch.randn(n, 8 if n > 9 else n - 1).double() + 1)[0]
    z = torch.linalg.qr(z - z.mean(0))[0] * (n - 1) ** 0.5
    if n > 9:
        assert F.vicreg(z, z) < 1e-6 and F.vicreg(2 * z, 2 * z) < 1e-6
        assert F.vicreg(z, z.flip(1), variance=0.0, covariance=0.0) > 1
    wide = torch.cat([z, z], 1)  # every feature twice: a covariance of 1 for each of them
    torch.testing.assert_close(F.vicreg(wide, wide), torch.tensor(2.0).double())
    narrow = z / 2
    missing = 25 * (1 - (0.25 + 1e-4) ** 0.5)
    torch.testing.assert_close(F.vicreg(narrow, narrow), torch.tensor(missing).double())


@pytest.mark.parametrize("temperature", [0.1, 0.02, 0.005])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_inva_spread_of_saturated_pairs(temperature, dtype):
    """Where the published code is NaN: perfect pairs, and a pair nearer to strangers."""
    z = torch.eye(4, 6).double()
    for views in ((z, z), (z, z.roll(1, 0)), (z, torch.ones(4, 6)), (z[:1], z[:1])):
        z0, z1 = (v.to(dtype).requires_grad_() for v in views)
        for weight in (1.0, 1.0001, 50.0):
            loss = F.inva_spread(z0, z1, temperature=temperature, negative_weight=weight)
            grads = torch.autograd.grad(loss, (z0, z1))
            assert loss.isfinite() and all(g.isfinite().all() for g in grads)
    # Every row is sure of a stranger: all of p is on it, and 1 - p is what the others have.
    exact = F.inva_spread(z, z.roll(1, 0), temperature=temperature)
    ours = F.inva_spread(z.to(dtype), z.roll(1, 0).to(dtype), temperature=temperature)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_inva_spread_of_equal_views(weight):
    """What is left of the loss is 1 - p of negatives far away, not the difference of two logs."""
    z = torch.randn(9, 240, dtype=torch.float64).float().double()
    options = {"temperature": 0.08, "negative_weight": weight}
    exact = inva_spread(z, z, **options)
    ours = F.inva_spread(z.float(), z.float(), **options)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weight", [0.9, 0.5, 0.1])
def test_inva_spread_of_a_weight_below_one(weight):
    """The authors' formula where it is a number, and NaN where it is: there p is above one."""
    views = [torch.randn(2, 5, 4, dtype=torch.float64) for _ in range(20)]
    views += [x[:1] + 0.1 * x for x in views]  # the other view is the nearest
    known = 0
    for z0, z1 in (x.requires_grad_() for x in views):
        options = {"temperature": 0.7, "negative_weight": weight}
        forms = [f(z0, z1, **options) for f in (F.inva_spread, inva_spread)]
        assert forms[0].isnan() == forms[1].isnan()
        if forms[0].isnan():
            continue
        known += 1
        torch.testing.assert_close(*forms)
        gradients = [torch.autograd.grad(x, (z0, z1)) for x in forms]
        torch.testing.assert_close(*gradients)
    assert known > 0
