"""Who contrasts what: every pair of rows and columns on exactly one rank, and the ring.

Rank r visits the columns of ranks r, r - 1, r - 2, ... With rows and columns of different kinds
(CLIP) it visits all. Rows contrasted with each other need each pair of ranks once, so r visits
half of them; where the number of ranks is even, it shares the last, opposite one with its owner.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from .._ranks import Ranks


def last_step(size: int, symmetric: bool) -> int:
    """The number of the last visit, the own columns being number 0."""
    return size // 2 if symmetric else size - 1


def part(rank: int, step: int, counts: list[int], symmetric: bool) -> tuple[slice, slice]:
    """The own rows and the visited columns that belong to this visit of this rank."""
    size = len(counts)
    owner = (rank - step) % size
    rows, columns = slice(0, counts[rank]), slice(0, counts[owner])
    if symmetric and step > 0 and 2 * step == size:  # the owner visits this rank too
        if rank < owner:
            columns = slice(0, counts[owner] // 2)
        else:
            rows = slice(counts[rank] // 2, counts[rank])
    return rows, columns


def runs(rank: int, counts: list[int]) -> list[tuple[slice, slice]]:
    """The visits to gathered columns of a symmetric contrast but the own, neighbours joined."""
    starts = [sum(counts[:i]) for i in range(len(counts))]
    joined: list[tuple[slice, slice]] = []
    visits = range(1, last_step(len(counts), True) + 1)
    for step in sorted(visits, key=lambda step: (rank - step) % len(counts)):
        rows, columns = part(rank, step, counts, True)
        start = starts[(rank - step) % len(counts)]
        columns = slice(start + columns.start, start + columns.stop)
        if joined and joined[-1][0] == rows and joined[-1][1].stop == columns.start:
            columns = slice(joined.pop()[1].start, columns.stop)
        joined.append((rows, columns))
    return [(r, c) for r, c in joined if r.start < r.stop and c.start < c.stop]


def ring(
    ranks: Ranks,
    counts: list[int],
    own: Sequence[Tensor],  # [b, ...] each: this rank's columns and what travels with them
    symmetric: bool,
    visit: Callable[[int, list[Tensor]], Tensor],
    merge: Callable[[Tensor, Tensor], Tensor],
    news: Tensor | None,  # [0, c] shape and dtype of what is reported of a column
) -> Tensor | None:
    """Columns go round the ranks once; what each rank reports of them follows and comes home.

    The next columns, and the report of the previous ones, move while the present ones are visited.
    In memory are two blocks of columns and three of reports, whatever the number of ranks.

    Args:
        visit: Called with the number of the step and the visiting columns; returns the report of
            this rank, `[b, c]` (ignored without news). With symmetric, step 0 reports nothing.
        merge: Joins two reports of the same columns.

    Returns:
        What all visited ranks reported of this rank's columns; None without news.
    """
    size, last = ranks.size, last_step(ranks.size, symmetric)
    after, before = (ranks.rank + 1) % size, (ranks.rank - 1) % size
    first = 1 if symmetric else 0  # step whose visit is reported first
    block, report = list(own), None
    for step in range(last + 1):
        sends, receives, following, earlier = [], [], [], None
        if step < last:
            rows = counts[(ranks.rank - step - 1) % size]
            following = [x.new_empty(rows, *x.shape[1:]) for x in own]
            sends += [(x, after) for x in block]
            receives += [(x, before) for x in following]
        if news is not None and step > first:
            earlier = news.new_empty(counts[(ranks.rank - step) % size], *news.shape[1:])
            sends.append((report, after))
            receives.append((earlier, before))
        moving = ranks.exchange(sends, receives)
        said = visit(step, block)
        moving.wait()
        if news is not None and step >= first:
            report = said if earlier is None else merge(earlier, said)
        block = following
    if news is None:
        return None
    home = news.new_empty(counts[ranks.rank], *news.shape[1:])
    ranks.exchange(
        [(report, (ranks.rank - last) % size)], [(home, (ranks.rank + last) % size)]
    ).wait()
    return home
