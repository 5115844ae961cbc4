"""The one table: every loss, its plain PyTorch twin and its inputs."""

from collections.abc import Callable
from functools import partial

import plain
import torch
from case import Case, pair, rounded, rows, run, two
from positive_cases import POSITIVES
from torch import Tensor

import fastcl.functional as F
from fastcl.functional.soft_cross_entropy import soft_cross_entropy

__all__ = ["CASES", "ONE_OF_EACH", "ROWS", "TEMPERATURES", "WIDTHS", "Case", "rounded", "run"]

# 1; odd; around 64 and 128, the smallest tiles of the kernels; two tiles and a bit.
ROWS = (1, 7, 63, 64, 65, 129, 300)
# One element, not a power of two, the common embedding, more than a row block of a kernel.
WIDTHS = (1, 16, 100, 128, 384)
TEMPERATURES = (1.0, 0.07, 0.01, 0.005)


def _strangers(n: int, d: int) -> dict[str, Tensor]:
    """Views that do not agree: positives of zero mean, by which the rounding of weights counts."""
    return {"z0": rows(n, d), "z1": rows(n, d)}


def _moco(n: int, d: int) -> dict[str, Tensor]:
    query, key = pair(n, d)
    return {"query": query, "key": key, "queue": plain.unit(rows(3 * n + 1, d))}


def _unpaired(n: int, d: int) -> dict[str, Tensor]:
    query, key = pair(n, d)
    return {"query": query, "key": key, "negatives": rows(2 * n + 3, d)}


def _paired(n: int, d: int) -> dict[str, Tensor]:
    query, key = pair(n, d)
    return {"query": query, "key": key, "negatives": torch.randn(n, 5, d, dtype=torch.float64)}


def _labels(n: int, d: int) -> dict[str, Tensor]:
    z = torch.cat(pair(n, d))
    return {"z": z, "labels": torch.randint(0, max(2, n // 4), (2 * n,))}


def _clip(n: int, d: int) -> dict[str, Tensor]:
    image, text = pair(n, d)
    return {"image": image, "text": text, "logit_scale": torch.tensor(1.0, dtype=torch.float64)}


def _siglip(n: int, d: int) -> dict[str, Tensor]:
    return {**_clip(n, d), "logit_bias": torch.tensor(-3.0, dtype=torch.float64)}


def _four(n: int, d: int) -> dict[str, Tensor]:
    (a, b), (c, e) = pair(n, d), pair(n, d)
    return {"p1": a, "p2": c, "z1": e, "z2": b}


def _queries(n: int, d: int) -> dict[str, Tensor]:
    return dict(zip(("q1", "q2", "k1", "k2"), _four(n, d).values(), strict=True))


def _scores(n: int, m: int) -> dict[str, Tensor]:
    return {f"view{v}": 2 * torch.rand(n, m, dtype=torch.float64) - 1 for v in range(3)}


def _soft_targets(n: int, m: int) -> dict[str, Tensor]:
    """Rows of weight 0 to 2."""
    weights = torch.linspace(0, 2, n, dtype=torch.float64)[:, None]
    target = weights * torch.randn(n, m, dtype=torch.float64).softmax(1)
    return {"scores": _scores(n, m)["view0"], "target": target}


def _soft_cross_entropy(scores: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    return soft_cross_entropy(scores, target, scale=1 / temperature)


def _listed(function: Callable) -> Callable:
    """Of one tensor per view."""
    return lambda view0, view1, view2, **kwargs: function([view0, view1, view2], **kwargs)


def _distilled(n: int, m: int) -> dict[str, Tensor]:
    """Scores of a student and of a teacher that is about as sure, and their mean elsewhere."""
    views = _scores(n, m)
    teacher = {f"teacher{v}": views[f"view{v}"] + 0.3 * torch.randn(n, m).double() for v in (0, 1)}
    return {**views, **teacher, "center": 0.3 * torch.randn(m, dtype=torch.float64)}


def _dino(view0, view1, view2, teacher0, teacher1, center, **kwargs) -> Tensor:
    return F.dino([view0, view1, view2], [teacher0, teacher1], center=center, **kwargs)


def _dino_plain(view0, view1, view2, teacher0, teacher1, center, **kwargs) -> Tensor:
    return plain.dino([view0, view1, view2], [teacher0, teacher1], center=center, **kwargs)


def _dino_one(function: Callable) -> Callable:
    """One view of the teacher, assigned by Sinkhorn's algorithm."""
    return lambda view0, view1, teacher0, **kwargs: function([view0, view1], [teacher0], **kwargs)


def _distilled_once(n: int, m: int) -> dict[str, Tensor]:
    tensors = _distilled(n, m)
    return {k: tensors[k] for k in ("teacher0", "view0", "view1")}


def _bank(n: int, d: int) -> dict[str, Tensor]:
    bank = plain.unit(rows(3 * n + 1, d))
    target = torch.randint(len(bank), (n,))
    x = 3 * plain.unit(bank[target] + 0.7 * plain.unit(rows(n, d)))
    return {"x": x, "bank": bank, "target": target}


def _sampled(n: int, d: int) -> dict[str, Tensor]:
    x, bank, target = _bank(n, d).values()
    index = torch.cat([target[:, None], torch.randint(len(bank), (n, 9))], 1)
    return {"x": x, "bank": bank, "index": index}


def _partners(n: int, d: int) -> dict[str, Tensor]:
    x, bank = rows(n, d), rows(n + 3, d)
    return {"x": x, "bank": bank, "index": torch.randint(n + 3, (n, 6))}


def _sampled_unevenly(n: int, d: int) -> dict[str, Tensor]:
    tensors = _sampled(n, d)
    weights = 0.1 + torch.rand(len(tensors["bank"]), dtype=torch.float64)
    return {**tensors, "noise": weights / weights.sum()}


def _multiview(n: int, d: int) -> dict[str, Tensor]:
    l, bank_l, index = _sampled(n, d).values()  # noqa: E741
    bank_ab = plain.unit(rows(len(bank_l), d))
    ab = 3 * plain.unit(bank_ab[index[:, 0]] + 0.7 * plain.unit(rows(n, d)))
    return {"l": l, "ab": ab, "bank_l": bank_l, "bank_ab": bank_ab, "index": index}


def _sequence(n: int, d: int) -> dict[str, Tensor]:
    context = rows(n, 3)
    weight = torch.randn(2, d, 3, dtype=torch.float64)
    future = torch.einsum("nc,sdc->snd", context, weight) / d + 0.1 * torch.randn(2, n, d).double()
    return {"context": context, "future": future, "weight": weight}


def _locations(n: int, d: int) -> dict[str, Tensor]:
    local, summary = (torch.randn(n, d, length).double() for length in (3, 2))
    return {"local": local + summary[..., :1], "summary": summary / d**0.5}


def _hard(n: int, d: int) -> dict[str, Tensor]:
    return {**two("z0", "z1")(n, d), "hard": rows(n, d)}


def _with_ids(inputs: Callable[[int, int], dict[str, Tensor]]) -> Callable:
    """And ids, two rows of each on average; of a queue too."""

    def with_ids(n: int, d: int) -> dict[str, Tensor]:
        tensors = {**inputs(n, d), "ids": torch.randint(n // 2 + 1, (n,))}
        if "queue" in tensors:
            tensors["queue_ids"] = torch.randint(-n, n // 2 + 1, (len(tensors["queue"]),))
        return tensors

    return with_ids


TEACHER = "teacher0", "teacher1", "center"
IGNORE, SMOOTH = {"duplicates": "ignore"}, {"label_smoothing": 0.1}

CASES = (
    Case("info_nce", F.info_nce, plain.info_nce, two("query", "key")),
    Case("info_nce_frozen", F.info_nce, plain.info_nce, two("query", "key"), ("key",)),
    Case("info_nce_unpaired", F.info_nce, plain.info_nce, _unpaired),
    Case("info_nce_paired", F.info_nce, plain.info_nce, _paired,
         kwargs={"negative_mode": "paired"}),
    Case("info_nce_ids", F.info_nce, plain.info_nce, _with_ids(two("query", "key"))),
    Case("info_nce_ignore", F.info_nce, plain.info_nce, _with_ids(two("query", "key")),
         kwargs=IGNORE),
    Case("info_nce_smoothed", F.info_nce, plain.info_nce, two("query", "key"), kwargs=SMOOTH),
    Case("info_nce_ids_smoothed", F.info_nce, plain.info_nce, _with_ids(two("query", "key")),
         kwargs=SMOOTH),
    Case("nt_xent", F.nt_xent, plain.nt_xent, two("z0", "z1")),
    Case("nt_xent_ids", F.nt_xent, plain.nt_xent, _with_ids(two("z0", "z1"))),
    Case("nt_xent_ignore", F.nt_xent, plain.nt_xent, _with_ids(two("z0", "z1")), kwargs=IGNORE),
    Case("dcl", F.dcl, plain.dcl, two("z0", "z1"), smallest=2),
    Case("dclw", F.dclw, plain.dclw, _strangers, smallest=2, derivative=False),
    Case("flat_nce", F.flat_nce, plain.flat_nce, two("z0", "z1"), smallest=2, derivative=False),
    Case("sup_con", F.sup_con, plain.sup_con, _labels),
    Case("clip", F.clip, plain.clip, _clip),
    Case("clip_ids", F.clip, plain.clip, _with_ids(_clip)),
    Case("clip_ignore", F.clip, plain.clip, _with_ids(_clip), kwargs=IGNORE),
    Case("clip_smoothed", F.clip, plain.clip, _clip, kwargs=SMOOTH),
    Case("clip_ids_smoothed", F.clip, plain.clip, _with_ids(_clip), kwargs=SMOOTH),
    Case("siglip", F.siglip, plain.siglip, _siglip),
    Case("siglip_ids", F.siglip, plain.siglip, _with_ids(_siglip)),
    Case("siglip_ignore", F.siglip, plain.siglip, _with_ids(_siglip), kwargs=IGNORE),
    Case("moco", F.moco, plain.moco, _moco, ("key", "queue")),
    Case("moco_ids", F.moco, plain.moco, _with_ids(_moco), ("key", "queue")),
    Case("moco_ignore", F.moco, plain.moco, _with_ids(_moco), ("key", "queue"), kwargs=IGNORE),
    Case("moco_v3", F.moco_v3, plain.moco_v3, _queries, ("k1", "k2")),
    Case("byol", F.byol, plain.byol, _four, ("z1", "z2"), temperature=False, fused=False),
    Case("simsiam", F.simsiam, plain.simsiam, _four, ("z1", "z2"), temperature=False, fused=False),
    Case("vicreg", F.vicreg, plain.vicreg, two("z0", "z1"), smallest=2, temperature=False,
         any_length=False, fused=False),
    Case("barlow_twins", F.barlow_twins, plain.barlow_twins, two("z0", "z1"), smallest=2,
         temperature=False, any_length=False, fused=False),
    Case("swav", _listed(F.swav), _listed(plain.swav), _scores, derivative=False,
         any_length=False),
    Case("swav_one", _listed(F.swav), _listed(plain.swav), _scores, ("view0",), derivative=False,
         any_length=False, kwargs={"assign": 1, "epsilon": 0.02, "iterations": 1}),
    Case("dino", _dino, _dino_plain, _distilled, TEACHER, any_length=False,
         kwargs={"teacher_temperature": 0.06}),
    Case("dino_sinkhorn", _dino_one(partial(F.dino, assignment="sinkhorn")),
         _dino_one(partial(plain.dino, center=0.0)), _distilled_once, ("view0", *TEACHER[:1]),
         any_length=False, kwargs={"teacher_temperature": 0.06, "iterations": 2}),
    Case("soft_cross_entropy", _soft_cross_entropy, plain.soft_cross_entropy, _soft_targets,
         ("target",), any_length=False),
    Case("inst_disc", F.inst_disc, plain.inst_disc, _bank, ("bank",)),
    Case("nce", F.nce, plain.nce, _sampled, ("bank",), kwargs={"normalizer": 50.0}),
    Case("negative_sampling", F.negative_sampling, plain.negative_sampling, _partners,
         temperature=False, any_length=False),
    Case("nce_noise", F.nce, plain.nce, _sampled_unevenly, ("bank", "noise"),
         kwargs={"normalizer": 2000.0}),
    Case("cmc", F.cmc, plain.cmc, _multiview, ("bank_l", "bank_ab"),
         kwargs={"normalizer_l": 50.0, "normalizer_ab": 90.0}),
    Case("inva_spread", F.inva_spread, plain.inva_spread, two("z0", "z1"), derivative=False),
    Case("inva_spread_weighted", F.inva_spread, plain.inva_spread, two("z0", "z1"),
         derivative=False, kwargs={"negative_weight": 3.0}),
    Case("cpc", F.cpc, plain.cpc, _sequence, temperature=False, any_length=False),
    Case("dim_jsd", F.dim_jsd, plain.dim_jsd, _locations, smallest=2, temperature=False,
         any_length=False),
    Case("dim_nce", F.dim_nce, plain.dim_nce, _locations, smallest=2, temperature=False,
         any_length=False, kwargs={"self_logit": -3.0}),
    Case("dim_dv", F.dim_dv, plain.dim_dv, _locations, smallest=2, temperature=False,
         any_length=False),
    Case("sim_cse", F.sim_cse, plain.sim_cse, two("z0", "z1")),
    Case("sim_cse_hard", F.sim_cse, plain.sim_cse, _hard, kwargs={"hard_weight": 0.5}),
    Case("sim_cse_light", F.sim_cse, plain.sim_cse, _hard, kwargs={"hard_weight": -2.0}),
    Case("sim_cse_hard_ids", F.sim_cse, plain.sim_cse, _with_ids(_hard),
         kwargs={"hard_weight": 0.5}),
    Case("sim_cse_hard_ignore", F.sim_cse, plain.sim_cse, _with_ids(_hard), kwargs=IGNORE),
    *POSITIVES,
)  # fmt: skip
# The first case of every function, for what its options hardly change.
ONE_OF_EACH = tuple(
    case for i, case in enumerate(CASES) if case.function not in {c.function for c in CASES[:i]}
)
