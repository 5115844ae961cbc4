"""The libraries that `fastcl.patch` knows, and what it replaces in each."""

from typing import NamedTuple


class Library(NamedTuple):
    distribution: str
    versions: tuple[str, ...]  # those that tests/test_compat_*.py compare with
    module: str  # imported, so that all names below are there
    names: dict[str, str]  # in the library -> in fastcl.compat
    # Attributes in fastcl.compat that hold a class of the library meanwhile.
    parts: dict[str, str] = {}  # in fastcl.compat -> in the library


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


LIBRARIES = {
    "lightly": Library(
        "lightly",
        ("1.6.0",),
        "lightly.loss",
        {
            "loss.ntx_ent_loss.NTXentLoss": "NTXentLoss",
            "loss.dcl_loss.DCLLoss": "DCLLoss",
            "loss.dcl_loss.DCLWLoss": "DCLWLoss",
            "loss.dcl_loss.negative_mises_fisher_weights": "negative_mises_fisher_weights",
            "loss.detcon_loss.DetConBLoss": "DetConBLoss",
            "loss.detcon_loss.DetConSLoss": "DetConSLoss",
            "loss.dino_loss.DINOLoss": "DINOLoss",
            "loss.directclr_loss.DirectCLRLoss": "DirectCLRLoss",
            "loss.hypersphere_loss.HypersphereLoss": "HypersphereLoss",
            "loss.ibot_loss.IBOTPatchLoss": "IBOTPatchLoss",
            "loss.ibot_loss.IBOTPlusPlusPatchLoss": "IBOTPlusPlusPatchLoss",
            "loss.macl_loss.MACLLoss": "MACLLoss",
            "loss.vicreg_loss.VICRegLoss": "VICRegLoss",
            "loss.swav_loss.SwaVLoss": "SwaVLoss",
            "loss.swav_loss.sinkhorn": "sinkhorn",
            "models.modules.nn_memory_bank.NNMemoryBankModule": "NNMemoryBankModule",
            "models.utils.update_momentum": "update_momentum",
        },
        {"NTXentLoss.bank_type": "models.modules.memory_bank.MemoryBankModule"},
    ),
    "open_clip": Library(
        "open-clip-torch",
        ("3.3.0",),
        "open_clip.loss",
        {
            f"loss.{name}": name
            for name in ("ClipLoss", "CoCaLoss", "DistillClipLoss", "SigLipLoss")
        },
    ),
    "pytorch_metric_learning": Library(
        "pytorch-metric-learning",
        ("2.9.0",),
        "pytorch_metric_learning.losses",
        {
            f"losses.{name}": name
            for name in (
                "NTXentLoss",
                "SupConLoss",
                "CrossBatchMemory",
                "MultiSimilarityLoss",
                "TupletMarginLoss",
            )
        },
    ),
    "info_nce": Library("info-nce-pytorch", ("0.1.4",), "info_nce", _same("InfoNCE", "info_nce")),
    "sentence_transformers": Library(
        "sentence-transformers",
        ("6.2.0",),
        "sentence_transformers.sentence_transformer.losses",
        {
            f"{home}.losses.{name}": name
            for home, names in (
                (
                    "sentence_transformer",
                    (
                        "MultipleNegativesRankingLoss",
                        "CachedMultipleNegativesRankingLoss",
                        "MultipleNegativesSymmetricRankingLoss",
                        "CachedMultipleNegativesSymmetricRankingLoss",
                        "ContrastiveTensionLossInBatchNegatives",
                        "GISTEmbedLoss",
                        "CachedGISTEmbedLoss",
                    ),
                ),
                ("sparse_encoder", ("SparseMultipleNegativesRankingLoss",)),
                (
                    "multi_vector_encoder",
                    (
                        "MultiVectorMultipleNegativesRankingLoss",
                        "CachedMultiVectorMultipleNegativesRankingLoss",
                    ),
                ),
            )
            for name in names
        },
    ),
    "pylate": Library(
        "pylate",
        ("1.6.0",),
        "pylate.losses",
        {
            "losses.contrastive.Contrastive": "Contrastive",
            "losses.cached_contrastive.CachedContrastive": "CachedContrastive",
        },
    ),
    "solo": Library(
        "solo-learn",
        ("1.0.2",),
        "solo.losses",
        {
            "losses.dino.DINOLoss": "DINOLoss",
            "losses.moco.moco_loss_func": "moco_loss_func",
            "losses.nnclr.nnclr_loss_func": "nnclr_loss_func",
            "losses.ressl.ressl_loss_func": "ressl_loss_func",
            "losses.simclr.simclr_loss_func": "simclr_two_views_loss_func",
            "losses.swav.swav_loss_func": "swav_loss_func",
            "losses.vicreg.vicreg_loss_func": "vicreg_loss_func",
        },
    ),
}
