"""How good features are: neighbours, probes, fine-tuning, retrieval, geometry, pictures.

`fastcl evaluate RUN` does all of it; the functions here take plain tensors.
"""

from .collapse import CollapseWatch, Diagnosis, diagnose
from .features import extract, pixels
from .geometry import alignment, dimension_spread, effective_rank, singular_values, uniformity
from .knn import knn_predict, nearest
from .linear import LinearProbe, linear_probe, probe_accuracy
from .maps import attention_maps, feature_maps
from .retrieval import Retrieval, cosine_neighbours, retrieve
from .sentences import SentencePairs, evaluate_sentences, read_pairs, similarity_spearman, spearman

__all__ = [
    "CollapseWatch", "Diagnosis", "LinearProbe", "Retrieval", "SentencePairs", "alignment",
    "attention_maps", "cosine_neighbours", "diagnose", "dimension_spread", "effective_rank",
    "evaluate_sentences", "extract", "feature_maps", "knn_predict", "linear_probe", "nearest",
    "pixels", "probe_accuracy", "read_pairs", "retrieve", "similarity_spearman",
    "singular_values", "spearman", "uniformity",
]  # fmt: skip
