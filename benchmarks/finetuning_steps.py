"""The step from sentence embeddings to loss and gradients at several numbers of pairs, as cases of
`benchmarks.migration`: the library's losses beside fastcl's, rows as wide as MiniLM's."""

import dataclasses
import sys
from collections.abc import Iterator

from fastcl import functional as F

from .cases import TEMPERATURE
from .finetuning_runs import WIDTHS
from .migration import chosen, measure, peaks, peaks_elsewhere
from .migration_case import Replaced, rows, views, with_more
from .migration_sentences import SENTENCES, embedding_model

WIDTH = WIDTHS[0]
SIZES, CACHED = (64, 512), 4096
RANKING, GUIDED = "MultipleNegativesRankingLoss", "GISTEmbedLoss"
SYMMETRIC = "MultipleNegativesSymmetricRankingLoss"


def _nested(module, n):
    """The library's wrapper around its loss; fastcl's function of all widths at once."""
    if module.__name__.startswith("fastcl"):
        return lambda anchor, positive: F.matryoshka(
            anchor, positive, widths=WIDTHS, temperature=TEMPERATURE
        )
    model = embedding_model("row")
    model.get_embedding_dimension = lambda: WIDTH
    inner = module.MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE)
    loss = module.MatryoshkaLoss(model, inner, list(WIDTHS))
    return lambda anchor, positive: loss([{"row": anchor}, {"row": positive}], None)


def _cases() -> tuple[Replaced, ...]:
    """Plain at the smaller sizes; cached in mini-batches at the largest."""
    named = {case.name: case for case in SENTENCES}
    pairs = views(WIDTH, "anchor", "positive")
    judged = with_more(pairs, **{k: lambda n: rows(n, WIDTH) for k in "xy"})
    ranking = dataclasses.replace(named[RANKING], inputs=pairs)
    guided = dataclasses.replace(named[GUIDED], inputs=judged)
    nested = dataclasses.replace(ranking, name="MatryoshkaLoss", build=_nested)
    large = [dataclasses.replace(named[f"Cached{x}"], inputs=pairs) for x in (RANKING, SYMMETRIC)]
    # The library's cosines, n x n x width numbers a mini-batch at a time: minutes a step.
    last = dataclasses.replace(named[f"Cached{GUIDED}"], inputs=judged, slow=True)
    some = [(case, n) for case in (ranking, guided, nested) for n in SIZES]
    return tuple(
        dataclasses.replace(case, rows=n, size=f"{n:,} x {WIDTH}", slow=case.slow or _slow(case, n))
        for case, n in [*some, *((case, CACHED) for case in large), (last, CACHED)]
    )


def _slow(case: Replaced, n: int) -> bool:
    """A matrix n x n x width, of the library's cosines."""
    return case.name == GUIDED and n == SIZES[1]


CASES = _cases()


def measured(names: list[str], budget: float) -> Iterator[dict]:
    """A row for each side of the cases chosen."""
    memory = peaks_elsewhere(names, "benchmarks.finetuning_steps")
    for index, case in enumerate(CASES):
        for row in measure(case, budget) if chosen(case, names) else ():
            yield row | {"extra_mb": memory[index, row["variant"]]}


if __name__ == "__main__":
    peaks(sys.argv[sys.argv.index("--cases") + 1 :], CASES)
