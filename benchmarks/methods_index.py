"""The table of docs/methods.md: one line per method and pretext task, its figures from the rows.

`python -m benchmarks.methods` writes it into the page when it ends.
"""

from typing import NamedTuple

from .tables import grid


class Line(NamedTuple):
    """One method. Classes are of `fastcl.methods`, of the family pretext those of `fastcl.pretext`.

    Args:
        name: As the paper calls it.
        page: Its page in docs/, with the formula and an example.
        paper: Authors and year.
        use: How to write it, the class first.
        recipes: Names for `fastcl pretrain --method`.
        reproduced: What of the paper is there, and what is not.
        entries: Names in results/methods.csv.
    """

    name: str
    page: str
    paper: str
    use: str
    recipes: tuple[str, ...]
    reproduced: str
    entries: tuple[str, ...] = ()


INSTANCES, PREDICTION, CLUSTERS, NO_NEGATIVES, TEXT, PRETEXT = (
    "methods-instances.md", "methods-prediction.md", "methods-clustering.md",
    "methods-no-negatives.md", "methods-text.md", "pretext.md",
)  # fmt: skip


def _trained(name: str, page: str, paper: str, use: str, recipe: str, reproduced: str) -> Line:
    """A method whose line of the table has the name of its recipe."""
    return Line(name, page, paper, use, (recipe,), reproduced, (recipe,))


LINES = (
    Line("InstDisc", INSTANCES, "Wu et al. 2018", "InstDisc", ("instdisc",),
         "bank updated after the step with momentum 0.5; noise-contrastive estimation "
         "(`noise=4096`) or full softmax (`noise=None`). The constant Z is the expectation over "
         "the first batch of what the original samples", ("instdisc", "instdisc-nce")),
    _trained("InvaSpread", INSTANCES, "Ye et al. 2019", "InvaSpread", "invaspread",
             "the second factor of every product is constant, as in the authors' code"),
    Line("MoCo v1, v2", INSTANCES, "He et al. 2020, Chen et al. 2020", "MoCo", ("mocov1", "moco"),
         "queue, twin, heads; keys shuffled over ranks, or over `groups` of one process that are "
         "batch-normalised by themselves", ("mocov1", "moco")),
    _trained("MoCo v3", INSTANCES, "Chen et al. 2021", "MoCoV3", "mocov3",
             "heads for ResNets and vision transformers, momentum rising to one, "
             "`freeze_patches` for the patch projection; its initialisation and the fixed "
             "positions of the authors' transformers are left to the backbone"),
    Line("SimCLR v1, v2", INSTANCES, "Chen et al. 2020", "SimCLR", ("simclr", "simclrv2"),
         "heads of two and three layers; the mean over 2n rows, half of the authors' sum",
         ("simclr", "simclrv2")),
    _trained("FlatNCE", INSTANCES, "Chen et al. 2021", 'SimCLR(loss="flat_nce")', "flatnce",
             "value of NT-Xent, gradient of DCL"),
    Line("DCL, DCLW", INSTANCES, "Yeh et al. 2022", 'SimCLR(loss="dcl")', ("dcl", "dclw"),
         "positives out of the denominator; the weights of `dclw` are constant", ("dcl", "dclw")),
    _trained("SupCon", INSTANCES, "Khosla et al. 2020", 'SimCLR(loss="sup_con")', "supcon",
             "labels as a third argument"),
    _trained("NNCLR", INSTANCES, "Dwibedi et al. 2021", "NNCLR", "nnclr",
             "support queue of first views, both directions halved"),
    Line("CPC, sequences", PREDICTION, "van den Oord et al. 2018", "CPC", (),
         "recurrent context, one random moment per batch, candidates are the batch's predictions, "
         "nothing normalised"),
    _trained("CPC, images", PREDICTION, "van den Oord et al. 2018", "ImageCPC", "cpc",
             "overlapping patches, context from the rows above by masked convolutions (plain "
             "residual ones, not a gated PixelCNN); the patch's own row is part of it from the "
             "left and the right; a quarter of the images grey (the paper: all), no crops of "
             "patches"),
    _trained("CMC", PREDICTION, "Tian et al. 2020", "CMC", "cmc",
             "L and ab, or any number of views in all pairs; bank per view, or the batch alone; "
             "estimation or softmax; colours are not jittered"),
    Line("Deep InfoMax", PREDICTION, "Hjelm et al. 2019", "DeepInfoMax", ("dim",),
         "local form with JSD, NCE, DV and the authors' heads; whole images; no prior matching",
         ("dim", "dim-nce", "dim-dv", "dim-8x8")),
    Line("CLIP", PREDICTION, "Radford et al. 2021", "CLIP", (),
         "scale starts at 1/0.07 and stays at 100 at most"),
    Line("SigLIP", PREDICTION, "Zhai et al. 2023", "SigLIP", (),
         "scale starts at 10, bias at -10"),
    _trained("SwAV", CLUSTERS, "Caron et al. 2020", "SwAV", "swav",
             "multi-crop, unit prototypes, `freeze` steps without gradient for them, queue per "
             "full view that takes part once full and after `queue_from` steps, assignments over "
             "all ranks"),
    _trained("DINO", CLUSTERS, "Caron et al. 2021", "DINO", "dino",
             "multi-crop from one decoding, head of three layers with GELU, unit prototypes "
             "(weight normalisation of fixed norm) that stay for the first epoch, center or "
             "Sinkhorn's assignment over all ranks, momentum rising to one, teacher temperature "
             "rising over 30 % of the steps (the authors: a number of epochs); no clipping of "
             "gradients"),
    _trained("BYOL", NO_NEGATIVES, "Grill et al. 2020", "BYOL", "byol",
             "heads, momentum rising to one, the twin's batch normalisation in training mode with "
             "statistics of its own"),
    _trained("SimSiam", NO_NEGATIVES, "Chen and He 2021", "SimSiam", "simsiam",
             "heads (three layers, two on CIFAR). The predictor's learning rate follows the "
             "schedule; the paper keeps it"),
    _trained("Barlow Twins", NO_NEGATIVES, "Zbontar et al. 2021", "BarlowTwins", "barlowtwins",
             "head of three layers, correlation over all ranks. One learning rate for all "
             "parameters; the paper has a smaller one for biases and norms"),
    _trained("VICReg", NO_NEGATIVES, "Bardes et al. 2022", "VICReg", "vicreg",
             "head of three layers, variance and covariance over all ranks, weights and means of "
             "the authors' code. One learning rate for all parameters, as Barlow Twins"),
    Line("SimCSE", TEXT, "Gao et al. 2021", "SimCSE", (),
         "one-sided loss, head in training alone, hard negatives with an offset of the logit",
         ("simcse",)),
    Line("ConSERT", TEXT, "Yan et al. 2021", "ConSERT", (),
         "shuffle, token and feature cutoff, dropout, NT-Xent at 0.1. The mean over 2n rows, half "
         "of the authors' sum; no adversarial views", ("consert",)),
    _trained("Rotation", PRETEXT, "Gidaris et al. 2018", "Rotation", "rotation",
             "all four turns of every image in the batch"),
    _trained("Jigsaw", PRETEXT, "Noroozi and Favaro 2016", "Jigsaw", "jigsaw",
             "permutations that are far apart, gaps, tiles normalised by themselves, channels "
             "shifted, some images in grey"),
    _trained("Relative patch", PRETEXT, "Doersch et al. 2015", "RelativePatch", "relative_patch",
             "eight places, gap and jitter, colour dropped"),
    _trained("Colourisation", PRETEXT, "Zhang et al. 2016", "Colorization", "colorization",
             "soft encoding in 259 computed bins (the paper: 313), rebalancing; no smoothing of "
             "the distribution of colours"),
    _trained("Split-brain", PRETEXT, "Zhang et al. 2017", "SplitBrain", "split_brain",
             "classification both ways, 50 bins of lightness (the paper: 100), nearest bin"),
    _trained("Inpainting", PRETEXT, "Pathak et al. 2016", "Inpainting", "inpainting",
             "hole in the middle or blocks, channel-wise layer; no adversarial term"),
    Line("Temporal order", PRETEXT, "Misra et al. 2016", "TemporalOrder", (),
         "tuples in order and out of order, windows drawn by the difference of frames (the paper: "
         "optical flow)"),
    Line("Time-contrastive", PRETEXT, "Sermanet et al. 2018", "TimeContrastive", (),
         "triplets from one or two views"),
    Line("Skip-gram", PRETEXT, "Mikolov et al. 2013", "SkipGram", (),
         "negative sampling, noise by the counts to the power 3/4, frequent words thinned out"),
    Line("Beside another loss", PRETEXT, "Zhai et al. 2019, Gidaris et al. 2019", "Auxiliary", (),
         "weighted sum with any loss"),
    Line("S4L", PRETEXT, "Zhai et al. 2019", "SemiSupervised", (),
         "labels of a few images, the task on all; equation 1 alone"),
    Line("Few-shot", PRETEXT, "Gidaris et al. 2019", "FewShot", (),
         "prototypical episodes, the task on all their images"),
)  # fmt: skip


def _figures(line: Line, rows: dict[str, dict[str, str]]) -> str:
    found = []
    for entry in line.entries:
        if row := rows.get(entry):
            change = f"{float(row['before']):.3f} to {float(row['after']):.3f}"
            found.append(change if len(line.entries) == 1 else f"`{entry}` {change}")
    return "; ".join(found) or "-"


def table(rows: list[dict[str, str]]) -> str:
    """Of the rows of results/methods.csv, which may be none."""
    by_name = {row["method"]: row for row in rows}
    heads = ["method", "paper", "class", "recipe", "what is reproduced", "measured"]
    cells = [
        [
            f"[{line.name}]({line.page})", line.paper, f"`{line.use}`",
            ", ".join(f"`{recipe}`" for recipe in line.recipes) or "-", line.reproduced,
            _figures(line, by_name),
        ]
        for line in LINES
    ]  # fmt: skip
    return grid(heads, cells) + "\n"
