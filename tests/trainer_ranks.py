"""The trainer of sentence-transformers over the ranks of torchrun: ranking losses within the
library's wrappers, as they are and after `fastcl.patch`. One curve.

    torchrun --nproc-per-node 2 tests/trainer_ranks.py
"""

import copy
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import fastcl

sys.path[:0] = [str(Path(__file__).parents[1] / x) for x in ("examples", "")]
from benchmarks.absent import stand_in_for_torchvision  # noqa: E402

with stand_in_for_torchvision():
    import sentence_transformers_trainer as example
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

STEPS, DIMS = 4, [64, 24, 8]
RANKING, GUIDED = "MultipleNegativesRankingLoss", "GISTEmbedLoss"
SYMMETRIC = "MultipleNegativesSymmetricRankingLoss"
EVERY = RANKING, SYMMETRIC, GUIDED, f"Cached{RANKING}", f"Cached{SYMMETRIC}", f"Cached{GUIDED}"
# What the library refuses or warns of is not here: layers of cached losses.
WRAPPERS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "": (lambda model, loss: loss, EVERY),
    "Matryoshka": (lambda model, loss: losses.MatryoshkaLoss(model, loss, DIMS), EVERY),
    "AdaptiveLayer": (partial(losses.AdaptiveLayerLoss, n_layers_per_step=-1), EVERY[:3]),
    "Matryoshka2d": (lambda model, loss: losses.Matryoshka2dLoss(model, loss, DIMS), EVERY[:3]),
}


def inner(name: str, model: torch.nn.Module, guide: torch.nn.Module) -> torch.nn.Module:
    """By name: `fastcl.patch` exchanges what the module has."""
    more = {"mini_batch_size": 3} if name.startswith("Cached") else {}
    if "GIST" in name:
        more["guide"] = copy.deepcopy(guide).eval()
    return getattr(losses, name)(model, gather_across_devices=True, **more)


def train(start: torch.nn.Module, wrap: Callable, name: str) -> torch.Tensor:
    """The losses of the steps, of this rank."""
    set_seed(0)
    model, data = copy.deepcopy(start), example.pairs()
    with tempfile.TemporaryDirectory() as folder:
        loss, found = wrap(model, inner(name, model, start)), []
        loss.register_forward_hook(lambda module, given, value: found.append(value.detach()))
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, max_steps=STEPS, per_device_train_batch_size=8, use_cpu=True,
            learning_rate=2e-3, save_strategy="no", report_to="none", disable_tqdm=True, seed=0,
            logging_strategy="no",
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=data, loss=loss
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return torch.stack(found)


def main() -> None:
    warnings.simplefilter("ignore")
    set_seed(0)
    with tempfile.TemporaryDirectory() as folder:  # before there are ranks: only the first saves
        start = example.small_model(folder, example.pairs())
    for wrapper, (wrap, names) in WRAPPERS.items():
        for name in names:
            before = train(start, wrap, name)
            fastcl.patch("sentence_transformers")
            try:
                after = train(start, wrap, name)
            finally:
                fastcl.unpatch("sentence_transformers")
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
            assert torch.distributed.get_world_size() == 2
            line = f"{wrapper}({name}): {after[0]:.4f} to {after[-1]:.4f}\n"
            print(line, end="", flush=True)  # at once: the ranks share their output


if __name__ == "__main__":
    main()
