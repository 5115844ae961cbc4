"""The cost model of a contrast over several ranks: products, bytes per link, what hides what.

b rows per rank, B = world * b in all, width d. CLIP: forward 1 product over all pairs, backward 3;
each pair is on one rank, so a rank computes units * 2 b B d operations.

    gather   all-gather of the columns; forward; all-to-all and all-gather of the statistics;
             backward; reduce-scatter of the column gradients. One after the other.
    ring     `world` steps of b x b pairs; each takes the longer of its products and its messages
             (their sum where nothing overlaps), forward and backward.

A collective moves (world - 1) / world of the bytes through the links of a node and
(nodes - 1) / nodes through the network cards, all cards of a node at once; a message of the ring
between nodes has one card. Memory is what a rank holds beside its own rows and their gradients.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

FORWARD, BACKWARD = 1, 3  # products of CLIP
STATISTICS, WITH_GRADIENT, IDS = 32, 40, 8  # bytes per row that travel with the columns
ACCUMULATED = 4  # bytes of an element of a column gradient


class Link(NamedTuple):
    """Seconds of one message of some bytes."""

    latency: float  # seconds
    bandwidth: float  # bytes per second, one direction

    def seconds(self, size: float) -> float:
        return self.latency + size / self.bandwidth


@dataclass(frozen=True)
class Machine:
    """What a rank computes and moves."""

    rate: float  # operations per second in the kernels
    launch: float  # seconds of a block beside its products
    collective: Link  # between the ranks of a node, in a collective
    message: Link  # between neighbours in a node, in the ring
    card: Link  # one network card
    per_node: int  # ranks, and as many cards
    overlaps: bool  # messages move while kernels run
    element: int  # bytes of an element of a row
    units: int = 1  # multiprocessors, each with a tile of a block at a time
    tile: int = 1  # rows and columns of a tile


class Cost(NamedTuple):
    compute: float  # seconds
    exposed: float  # seconds of communication that nothing hides
    memory: float  # bytes

    @property
    def total(self) -> float:
        return self.compute + self.exposed


def block(machine: Machine, n: int, m: int, d: int, products: int) -> float:
    """Seconds of n x m pairs. The last wave of tiles takes as long as a full one."""
    tiles = math.ceil(n / machine.tile) * math.ceil(m / machine.tile)
    waves = math.ceil(tiles / machine.units)
    pairs = waves * machine.units * machine.tile**2
    return machine.launch + products * 2 * pairs * d / machine.rate


def collective(machine: Machine, world: int, total: float) -> float:
    """Seconds of an all-gather, reduce-scatter or all-to-all of `total` bytes over all ranks."""
    local = min(world, machine.per_node)
    nodes = math.ceil(world / machine.per_node)
    inside = total * (local - 1) / local / machine.collective.bandwidth
    across = total * (nodes - 1) / nodes / (machine.card.bandwidth * machine.per_node)
    hops = machine.collective.latency * (local - 1) + machine.card.latency * math.log2(nodes)
    return hops + max(inside, across)


def gather(machine: Machine, world: int, b: int, d: int) -> Cost:
    total, e = world * b, machine.element
    compute = block(machine, b, total, d, FORWARD) + block(machine, b, total, d, BACKWARD)
    exposed = sum(collective(machine, world, size) for size in collectives(b, d, world, e))
    memory = total * (d * e + d * ACCUMULATED + IDS + STATISTICS + WITH_GRADIENT)
    return Cost(compute, exposed, memory)


def collectives(b: int, d: int, world: int, element: int) -> tuple[int, ...]:
    """Bytes of all ranks in each collective of gather, forward and backward."""
    total = world * b
    return (total * d * element, total * IDS, total * STATISTICS, total * WITH_GRADIENT,
            total * d * ACCUMULATED)  # fmt: skip


def messages(b: int, d: int, element: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes of the columns and of the report that follows, in a step forward and backward."""
    columns = b * (d * element + IDS)
    return (columns, b * STATISTICS), (columns + b * WITH_GRADIENT, b * d * ACCUMULATED)


def ring(machine: Machine, world: int, b: int, d: int) -> Cost:
    e = machine.element
    link = machine.message if world <= machine.per_node else machine.card
    compute = exposed = 0.0
    for products, (forth, home) in zip((FORWARD, BACKWARD), messages(b, d, e), strict=True):
        own = block(machine, b, b, d, products)
        moving = link.seconds(forth + home)
        hidden = min(own, moving) if machine.overlaps else 0.0
        compute += world * own
        exposed += (world - 1) * (moving - hidden) + link.seconds(home)
    memory = b * (2 * (d * e + IDS + WITH_GRADIENT) + 3 * d * ACCUMULATED)
    return Cost(compute, exposed, memory)


MODES = {"gather": gather, "ring": ring}


def chosen(costs: dict[str, Cost], room: float) -> str:
    """The faster mode among those that fit into `room` bytes."""
    fitting = {mode: cost for mode, cost in costs.items() if cost.memory <= room}
    return min(fitting or costs, key=lambda mode: costs[mode].total)
