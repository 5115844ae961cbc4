"""Which tests are to see a mutant of a file, the telling ones first: one failure ends it."""

EVERY = "losses bad_input equivalences fuzz modules refused_or_whole duplicates temperatures"
CONTRAST = f"{EVERY} positives positive_errors positive_edges positive_laws retrieval golden"
KERNEL = "cpu_kernel block_borders contrast_mean contrast_self contrast_own limits cpu_memory"
# Test files, and words of which one is in the names of the tests; without an entry the stem.
FUNCTIONAL = {
    "noise": ("noise bank nce fuzz", "noise or alias or Alias or nce"),
    "product": ("product", ""),
    "packed": ("random_views_input views_decode views fuzz", ""),
    "random_views": ("random_views random_views_input random_views_laws fuzz", "view"),
    "view_memory": ("views_out views_decode", ""),
    "view_parameters": ("random_views_input random_views draw", ""),
    "sinkhorn": ("sinkhorn bad_input fuzz", "sinkhorn or swav"),
    "unit_rows": ("unit_rows bad_input fuzz", "unit_rows"),
    "soft_cross_entropy": ("soft_cross_entropy losses", "cross_entropy"),
    "nt_xent": (f"{EVERY} properties", "nt_xent or dcl or flat"),
    "debiased": (CONTRAST, "debiased or hcl"),
    "nce": (f"{EVERY} nce", "nce"),
    "cmc": (f"{EVERY} nce", "cmc or bad"),
    "rows": (EVERY, "byol or simsiam or row_products or sim_cse or moco or nt_xent or info_nce"),
    "levels": (CONTRAST, "contrast or level or positive"),
    "blocks": (CONTRAST, "contrast or retrieval or margin or sum or target or left_out"),
    "dino": (f"{EVERY} dino", "dino"),
    **{name: (CONTRAST, name) for name in ("mil_nce", "matryoshka", "rince", "retrieval")},
    **{
        name: (CONTRAST, "contrast or positive or any_options or rows_as or false")
        for name in ("asked", "contrast", "contrast_ways", "pairs", "positives")
    },
}
CPU = {
    **{name: name for name in ("bank", "queue", "momentum", "nce", "sinkhorn", "unit_rows")},
    **{name: "pair_products" for name in ("emulated", "avx512bf16", "amx")},
    "pairs": "instruction_sets pair_products", "contrast_pairs": "pair_products",
    "sinkhorn_scaling": "sinkhorn", "soft_cross_entropy": "soft_cross_entropy",
    "product": "product pair_products nested_contrast", "nested_contrast": "nested_contrast",
    "max_sim": "max_sim", "draw_views": "draw_kernel draw random_views",
    **{name: "sigmoid_contrast block_borders" for name in ("sigmoid_contrast", "logistic")},
    "instruction_set": "instruction_sets cpu_kernel", "threads": "race",
    "float16": "bank queue momentum unit_rows nce", "row": "soft_cross_entropy nce sinkhorn",
    "simd": "cpu_kernel",
}  # fmt: skip


def of(path: str) -> tuple[list[str], str]:
    """Test files and words of a file of fastcl/functional or csrc/cpu."""
    stem = path.rpartition("/")[2].partition(".")[0]
    names, words = CPU.get(stem, KERNEL), ""
    if path.endswith(".py"):
        names, words = FUNCTIONAL.get(stem, (EVERY, stem))
    elif stem.startswith("random_views"):
        names = "random_views_kernel random_views_laws random_views"
    return [f"tests/test_{name}.py" for name in names.split()], words
