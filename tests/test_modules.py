"""Every loss module is one call of its function, with its hyper-parameters and what it learns."""

import copy
import math

import pytest
import torch
from cases import CASES
from torch import nn

import fastcl.functional as F
from fastcl import losses

MODULES = {
    "info_nce": losses.InfoNCELoss, "info_nce_unpaired": losses.InfoNCELoss,
    "info_nce_paired": losses.InfoNCELoss, "nt_xent": losses.NTXentLoss, "dcl": losses.DCLLoss,
    "dclw": losses.DCLWLoss, "flat_nce": losses.FlatNCELoss, "sup_con": losses.SupConLoss,
    "clip": losses.CLIPLoss, "siglip": losses.SigLIPLoss, "moco": losses.MoCoLoss,
    "moco_v3": losses.MoCoV3Loss, "byol": losses.BYOLLoss, "simsiam": losses.SimSiamLoss,
    "barlow_twins": losses.BarlowTwinsLoss, "vicreg": losses.VICRegLoss,
    "inst_disc": losses.InstDiscLoss,
    "nce": losses.NCELoss, "inva_spread": losses.InvaSpreadLoss,
    "inva_spread_weighted": losses.InvaSpreadLoss, "dim_jsd": losses.DIMJSDLoss,
    "dim_nce": losses.DIMNCELoss, "dim_dv": losses.DIMDVLoss, "sim_cse": losses.SimCSELoss,
    "sim_cse_hard": losses.SimCSELoss, "info_nce_ids": losses.InfoNCELoss,
    "info_nce_ignore": losses.InfoNCELoss, "nt_xent_ids": losses.NTXentLoss,
    "nt_xent_ignore": losses.NTXentLoss, "clip_ids": losses.CLIPLoss,
    "clip_ignore": losses.CLIPLoss, "siglip_ids": losses.SigLIPLoss,
    "siglip_ignore": losses.SigLIPLoss, "moco_ids": losses.MoCoLoss,
    "moco_ignore": losses.MoCoLoss, "sim_cse_hard_ids": losses.SimCSELoss,
    "sim_cse_hard_ignore": losses.SimCSELoss, "info_nce_smoothed": losses.InfoNCELoss,
    "info_nce_ids_smoothed": losses.InfoNCELoss, "clip_smoothed": losses.CLIPLoss,
    "clip_ids_smoothed": losses.CLIPLoss, "mil_nce": losses.MILNCELoss,
    "debiased": losses.DebiasedLoss, "hcl": losses.HCLLoss, "rince": losses.RINCELoss,
    "retrieval": losses.RetrievalLoss, "retrieval_hard": losses.RetrievalLoss,
    "retrieval_margin": losses.RetrievalLoss, "contrast": losses.ContrastLoss,
    "contrast_both": losses.ContrastLoss, "contrast_weights": losses.ContrastLoss,
    "contrast_bias": losses.ContrastLoss, "contrast_alone": losses.ContrastLoss,
    "contrast_margin": losses.ContrastLoss, "contrast_margin_both": losses.ContrastLoss,
    "contrast_smoothing": losses.ContrastLoss,
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_module_is_its_function(name):
    case = next(c for c in CASES if c.name == name)
    tensors, kwargs = case.arguments(9, 5, 0.3)
    module = copy.deepcopy(MODULES[name](**kwargs))
    ours = module(**tensors)
    torch.testing.assert_close(ours, case.function(**tensors, **kwargs), rtol=1e-6, atol=1e-6)
    for key, value in kwargs.items():
        if isinstance(value, float) and key != "normalizer":
            assert getattr(module, key) == value
    assert repr(module)


def test_defaults_are_those_of_the_functions():
    views = list(torch.randn(2, 6, 4))
    for module, function in (
        (losses.InfoNCELoss, F.info_nce), (losses.NTXentLoss, F.nt_xent), (losses.DCLLoss, F.dcl),
        (losses.DCLWLoss, F.dclw), (losses.FlatNCELoss, F.flat_nce),
        (losses.InvaSpreadLoss, F.inva_spread), (losses.SimCSELoss, F.sim_cse),
        (losses.BarlowTwinsLoss, F.barlow_twins), (losses.VICRegLoss, F.vicreg),
    ):  # fmt: skip
        assert torch.equal(module()(*views), function(*views)), function.__name__
    for module, function in (
        (losses.ContrastLoss, F.contrast), (losses.DebiasedLoss, F.debiased),
        (losses.HCLLoss, F.hcl), (losses.RINCELoss, F.rince), (losses.RetrievalLoss, F.retrieval),
    ):  # fmt: skip
        assert torch.equal(module()(*views), function(*views)), function.__name__
    matryoshka = losses.MatryoshkaLoss(widths=[2, 4])
    assert torch.equal(matryoshka(*views), F.matryoshka(*views, widths=[2, 4]))
    four = torch.randn(4, 6, 4)
    assert torch.equal(losses.MoCoV3Loss()(*four), F.moco_v3(*four))
    assert torch.equal(losses.SwAVLoss()(list(four)), F.swav(list(four)))
    assert torch.equal(losses.MoCoLoss()(*four[:3]), F.moco(*four[:3]))
    local, summary = torch.randn(3, 4, 5), torch.randn(3, 4, 2)
    assert torch.equal(losses.DIMNCELoss()(local, summary), F.dim_nce(local, summary))


def test_swav_with_a_queue():
    views, queue = torch.rand(2, 4, 3), torch.rand(1, 5, 3)
    module = losses.SwAVLoss(0.2, assign=1, epsilon=0.1, iterations=2)
    want = F.swav(views, assign=1, temperature=0.2, epsilon=0.1, iterations=2, queue=queue)
    assert torch.equal(module(views, queue), want)


def test_the_center_of_dino_follows_the_teacher():
    student, teacher = torch.rand(3, 4, 5), torch.rand(2, 4, 5)
    module, center = losses.DINOLoss(5, 0.2, momentum=0.7), torch.zeros(5)
    for temperature in (None, 0.06):
        want = F.dino(student, teacher, center=center, temperature=0.2,
                      teacher_temperature=temperature or 0.04)  # fmt: skip
        assert torch.equal(module(student, teacher, temperature), want)
        center = 0.7 * center + 0.3 * teacher.mean((0, 1))
        torch.testing.assert_close(module.center, center)
    module.eval()(student, teacher)
    torch.testing.assert_close(module.center, center)
    twin = losses.DINOLoss(5)
    twin.load_state_dict(module.state_dict())
    assert torch.equal(twin.center, module.center)
    balanced = losses.DINOLoss(5, assignment="sinkhorn", iterations=2)
    want = F.dino(student, teacher, assignment="sinkhorn", iterations=2)
    assert torch.equal(balanced(student, teacher), want) and not balanced.state_dict()
    assert "momentum=0.7" in repr(module)


def test_cpc_learns_its_predictions():
    module = losses.CPCLoss(2, 4, 3)
    future, context = torch.randn(2, 6, 4), torch.randn(6, 3)
    loss = module(future, context)
    assert torch.equal(loss, F.cpc(future, context, module.weight))
    loss.backward()
    assert module.weight.grad.abs().sum() > 0
    reference = nn.Linear(3, 4).weight.abs().max()
    assert 0.5 * reference < module.weight.abs().max() <= 3**-0.5


def test_the_normalizer_is_that_of_the_first_batch():
    x, bank = torch.randn(2, 6, 4), torch.nn.functional.normalize(torch.randn(9, 4), dim=1)
    index = F.noise_indices(torch.arange(6), 9, 5)
    module = losses.NCELoss(0.3)
    z = F.nce_normalizer(x[0], bank, temperature=0.3)
    for rows in x:
        want = F.nce(rows, bank, index, temperature=0.3, normalizer=z)
        torch.testing.assert_close(module(rows, bank, index), want)
    twin = losses.NCELoss(0.3)
    twin.load_state_dict(module.state_dict())
    assert torch.equal(twin(x[1], bank, index), module(x[1], bank, index))


def test_cmc_has_a_normalizer_per_view():
    l, ab = torch.randn(2, 6, 4)  # noqa: E741
    bank_l, bank_ab = torch.nn.functional.normalize(torch.randn(2, 9, 4), dim=2)
    index = F.noise_indices(torch.arange(6), 9, 5)
    want = F.cmc(
        l, ab, bank_l, bank_ab, index, temperature=0.3,
        normalizer_l=F.nce_normalizer(l, bank_ab, temperature=0.3),
        normalizer_ab=F.nce_normalizer(ab, bank_l, temperature=0.3),
    )  # fmt: skip
    torch.testing.assert_close(losses.CMCLoss(0.3)(l, ab, bank_l, bank_ab, index), want)


LEARNED = {
    "contrast": losses.ContrastLoss, "mil_nce": losses.MILNCELoss,
    "retrieval": losses.RetrievalLoss, "matryoshka": losses.MatryoshkaLoss,
}  # fmt: skip


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_temperature(name):
    case = next(c for c in CASES if c.name == name)
    tensors, _ = case.arguments(9, 5, 0.3)
    options = {"widths": (3, 5)} if name == "matryoshka" else {}
    module = LEARNED[name](0.3, learned=True, **options)
    fixed = LEARNED[name](0.3, **options)
    assert not list(fixed.parameters()) and [*module.state_dict()] == ["log_temperature"]
    loss = module(**tensors)
    torch.testing.assert_close(loss, fixed(**tensors))
    loss.backward()
    step = 1e-4
    around = [LEARNED[name](0.3 * math.exp(x), **options)(**tensors) for x in (step, -step)]
    slope = (around[0] - around[1]) / (2 * step)
    torch.testing.assert_close(module.log_temperature.grad.double(), slope, rtol=1e-3, atol=1e-6)
    assert "temperature=0.3, learned=True" in repr(module)
    with torch.no_grad():
        module.log_temperature.fill_(-9)
    torch.testing.assert_close(module(**tensors), LEARNED[name](0.01, **options)(**tensors))


def test_contrast_with_levels():
    z, labels = torch.randn(8, 4), torch.randint(0, 2, (8, 2))
    module = losses.ContrastLoss(0.2, level_weights=[1.0, 0.5], positives="sum")
    want = F.contrast(z, temperature=0.2, labels=labels, positives="sum",
                      level_weights=torch.tensor([1.0, 0.5]))  # fmt: skip
    assert torch.equal(module(z, labels=labels), want)
    assert not module.state_dict()


def test_bad_hyper_parameters():
    for call, message in (
        (lambda: losses.NTXentLoss(0), "temperature must be"),
        (lambda: losses.DCLWLoss(sigma=-1), "sigma must be"),
        (lambda: losses.NCELoss(normalizer=0.0), "normalizer must be"),
        (lambda: losses.SwAVLoss(assign=0), "assign must be"),
        (lambda: losses.DINOLoss(1), "prototypes must be 2 or more, got 1"),
        (lambda: losses.DINOLoss(5, momentum=2.0), "momentum must be from 0 to 1, got 2"),
        (lambda: losses.DINOLoss(5, assignment="mean"), "assignment must be one of center, sink"),
        (lambda: losses.CPCLoss(0, 3, 3), "steps must be"),
        (lambda: losses.ContrastLoss(positives="all"), "positives must be"),
        (lambda: losses.ContrastLoss(label_smoothing=2), "label_smoothing must be from 0 to 1"),
        (lambda: losses.ContrastLoss(0.001, learned=True), "temperature must be 0.01 at least"),
        (lambda: losses.DebiasedLoss(tau_plus=1.0), "tau_plus must be from 0 to below 1"),
        (lambda: losses.HCLLoss(beta=-1.0), "beta must not be negative"),
        (lambda: losses.RINCELoss(q=0), "q must be"),
        (lambda: losses.RetrievalLoss(margin=float("nan")), "margin must be"),
        (lambda: losses.MatryoshkaLoss(widths=[0]), "widths must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
