"""Why a public loss of a library is not replaced, or gains little: one reason each, for
`compat_table`."""

_WRAPS = "wraps another loss, replaced or not, and calls it as before"
_PAIRS = "one number per pair of rows: no matrix to save"
_LABELS = "regression or classification of single rows: nothing is contrasted"
_TEACHER = "a teacher's scores for few candidates: no matrix to save"
_FEATURES = "statistics of features: no matrix of rows against rows"
_HARDEST = (
    "the hardest or best distances of a batch: a minimum of a matrix, not a sum of exponentials"
)
_MINED = "sums over mined pairs or triplets, which the library lists; no sum of exponentials"
_PROXIES = "weights per class that are learned: rows against few classes, a classifier"
_RANKS = "ranks or histograms of similarities: no sum of exponentials of scaled products"
_DISTANCES = "a soft maximum of distances, which are roots: the operators know products"
_LISTED = (
    "the logarithm of a sum over all pairs of a label: a fused pass would list them one by one"
)
_QUADRATIC = "the exponent is no multiple of the similarity: no kernel"

_PRODUCTS = (
    "as many rows as columns and wide ones, so that either is mostly matrix products; the more "
    "negatives for a row, the larger the ratio"
)

# Of what is replaced and gains little at the first size measured.
CLOSE = {"info_nce": dict.fromkeys(("InfoNCE", "info_nce"), _PRODUCTS)}

AS_IT_IS = {
    "pytorch_metric_learning": dict.fromkeys(("SelfSupervisedLoss", "MultipleLosses"), _WRAPS),
    "sentence_transformers": dict.fromkeys(
        ("AdaptiveLayerLoss", "CachedSpladeLoss", "CSRLoss", "Matryoshka2dLoss", "MatryoshkaLoss",
         "SpladeLoss"), _WRAPS,
    ),
}  # fmt: skip

NOT: dict[str, dict[str, str]] = {
    "lightly": {
        **dict.fromkeys(
            ("BarlowTwinsLoss", "EMPSSLLoss", "FroSSLLoss", "LeJEPALoss", "LeWMLoss", "MMCRLoss",
             "TiCoLoss", "SIGReg", "VICRegLLoss", "VISRegLoss",
             "VISRegLossComponents", "WMSELoss"), _FEATURES,
        ),
        "CAPILoss": "its Sinkhorn balances each position of the patches by itself",
        **dict.fromkeys(
            ("MSNLoss", "PMSNLoss", "PMSNCustomLoss"),
            "the mean of softmaxes over prototypes is regularised: they are formed anyway",
        ),
        "KoLeoLoss": _HARDEST,
        "CO2Regularizer": "lightly's has no gradient: its value is copied into a new tensor",
        "DSERegularizer": "k-means of the patches: no softmax",
        "PatchKernelAlignmentLoss": "kernels of the patches of one image: small matrices",
    },
    "pytorch_metric_learning": {
        **dict.fromkeys(
            ("AngularLoss", "BaseLossWrapper", "BaseMetricLossFunction", "ContrastiveLoss",
             "DynamicSoftMarginLoss", "GenericPairLoss", "IntraPairVarianceLoss", "MarginLoss",
             "RankedListLoss", "SignalToNoiseRatioContrastiveLoss",
             "ThresholdConsistentMarginLoss", "TripletMarginLoss"), _MINED,
        ),
        **dict.fromkeys(("GeneralizedLiftedStructureLoss", "LiftedStructureLoss"), _DISTANCES),
        **dict.fromkeys(
            ("ArcFaceLoss", "CosFaceLoss", "InstanceLoss", "LargeMarginSoftmaxLoss",
             "NormalizedSoftmaxLoss", "P2SGradLoss", "ProxyAnchorLoss", "ProxyNCALoss",
             "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"), _PROXIES,
        ),
        **dict.fromkeys(("FastAPLoss", "HistogramLoss", "PNPLoss", "SmoothAPLoss"), _RANKS),
        "ManifoldLoss": "a random walk: the matrix of similarities is inverted",
        "VICRegLoss": "the library reduces its parts one by one",
        "CircleLoss": _QUADRATIC,
        "NCALoss": _LISTED,
        "NPairsLoss": "one pair per class: a matrix of classes by classes",
    },
    "sentence_transformers": {
        **dict.fromkeys(
            ("AnglELoss", "CoSENTLoss", "SparseAnglELoss", "SparseCoSENTLoss"),
            "a logarithm of a sum over pairs of scores, one score per row: no products of rows",
        ),
        **dict.fromkeys(
            ("BatchAllTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchHardTripletLoss",
             "BatchSemiHardTripletLoss", "MegaBatchMarginLoss", "OnlineContrastiveLoss"), _HARDEST,
        ),
        **dict.fromkeys(
            ("ContrastiveLoss", "ContrastiveTensionLoss", "CosineSimilarityLoss", "MSELoss",
             "SparseCosineSimilarityLoss", "SparseMSELoss", "SparseTripletLoss", "TripletLoss"),
            _PAIRS,
        ),
        **dict.fromkeys(("DenoisingAutoEncoderLoss", "SoftmaxLoss"), _LABELS),
        **dict.fromkeys(
            ("DistillKLDivLoss", "EmbedDistillLoss", "MarginMSELoss", "SparseDistillKLDivLoss",
             "SparseMarginMSELoss"), _TEACHER,
        ),
        **dict.fromkeys(("CSRReconstructionLoss", "FlopsLoss"), _FEATURES),
        "BatchHardTripletLossDistanceFunction": "distances, no loss",
        "GlobalOrthogonalRegularizationLoss": "means and squares of similarities: no exponential",
    },
    "sentence_transformers, cross-encoders": {
        **dict.fromkeys(
            ("NDCGLoss1Scheme", "NDCGLoss2PPScheme", "NDCGLoss2Scheme"),
            "weights of `LambdaLoss`, no loss",
        ),
        **dict.fromkeys(
            ("ADRMSELoss", "BinaryCrossEntropyLoss", "CachedMultipleNegativesRankingLoss",
             "CrossEntropyLoss", "LambdaLoss", "ListMLELoss", "ListNetLoss", "MSELoss",
             "MarginMSELoss", "MultipleNegativesRankingLoss", "PListMLELoss", "RankNetLoss"),
            "every score is a pass of the network over a pair of texts: no products of rows",
        ),
    },
    "sentence_transformers, multi-vector": {
        **dict.fromkeys(("MultiVectorDistillKLDivLoss", "MultiVectorMarginMSELoss"), _TEACHER),
    },
    "pylate": {"Distillation": _TEACHER},
    "solo": {
        **dict.fromkeys(("barlow_loss_func", "wmse_loss_func"), _FEATURES),
        "deepclusterv2_loss_func": "a cross-entropy of given logits: nothing to fuse",
        "manual_simclr_loss_func": "its formula once more, for tests of the library",
    },
}  # fmt: skip
