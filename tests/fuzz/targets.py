"""All that is fuzzed, by name: functions of a generator that raise where something is wrong."""

import random
from functools import partial

import torch
from cases import CASES

from fastcl._library import COMPILED
from fastcl._processor import INSTRUCTION_SETS, PAIR_PRODUCTS, use_processor
from fuzz import files, general, late, state, table

TARGETS = {
    **{case.name: partial(table.check, case=case) for case in CASES},
    "any_contrast": general.contrast,
    "false_negatives": general.false_negatives,
    "max_sim_tokens": late.max_sim,
    "queue_push_": state.queue_push,
    "bank_update_": state.bank_update,
    "momentum_update_": state.momentum_update,
    "unit_rows": state.unit_rows,
    "row_products": state.row_products,
    "sinkhorn": state.sinkhorn,
    "nce_normalizer": state.nce_normalizer,
    "noise_indices": state.noise_indices,
    "random_views": state.random_views,
    **{f"file{suffix}": partial(files.check, suffix=suffix) for suffix in files.READERS},
}


def _other_kernels(rng) -> None:
    """Any instruction set, any products of pairs that this processor has, any number of threads."""
    torch.set_num_threads(rng.choice((1, 2, 3, 5)))
    if not COMPILED.exists() or rng.random() < 0.5:
        return
    products = rng.choice(PAIR_PRODUCTS)
    try:
        use_processor(rng.choice(INSTRUCTION_SETS), products)
    except RuntimeError:  # the processor lacks it
        use_processor()


def run_case(name: str, seed: int) -> None:
    """One problem of a target, the same for the same seed."""
    rng = random.Random(f"{name}:{seed}")
    torch.manual_seed(rng.randrange(2**31))
    threads = torch.get_num_threads()
    try:
        _other_kernels(rng)
        TARGETS[name](rng)
    finally:
        torch.set_num_threads(threads)
        if COMPILED.exists():
            use_processor()
