"""What machine code says without running: resources, and the instructions that one tile costs.

nvdisasm's listing becomes basic blocks; the tile loop is the outermost loop that multiplies. Of
the paths through it, the one with the most tensor-core work and then the fewest instructions is
what a plain tile takes: it skips the comparisons of special tiles and the spinning of a barrier.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

# Opcodes by the unit that limits them (rates in hardware.py); what is not named is `other`.
CLASSES = {
    "tensor": "HGMMA HMMA QGMMA IMMA UTCHMMA UTCQMMA",
    "special": "MUFU",
    "fma": "FFMA FADD FMUL FFMA2 FADD2 FMUL2 HFMA2 HADD2 HMUL2",
    "fp64": "DADD DFMA DMUL DSETP",
    "convert": "F2I I2F F2F I2FP FRND POPC FLO",
    "load": "LDG LD LDGSTS",
    "store": "STG ST",
    "bulk": "UTMALDG UTMASTG UBLKCP",
    "shared": "LDS STS LDSM STSM ATOMS",
    "shuffle": "SHFL REDUX CREDUX VOTE MATCH",
    "barrier": "BAR SYNCS WARPSYNC BSYNC BSSY DEPBAR WARPGROUP LDGDEPBAR MEMBAR FENCE",
    "local": "LDL STL",
    "alu": "IADD3 IADD LOP3 SHF LEA PRMT SEL ISETP FSETP FMNMX FMNMX3 FSEL IMNMX VIMNMX PLOP3 "
    "MOV IMAD R2P P2R IABS LOP F2FP FSET SGXT BMSK VIADD",
}
_CLASS = {opcode: name for name, opcodes in CLASSES.items() for opcode in opcodes.split()}
_LINE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)(.*)")
_LABEL = re.compile(r"^\s*([.$\w]+):\s*$")


@dataclass
class Block:
    """Instructions that run one after the other, and where they lead."""

    counts: Counter = field(default_factory=Counter)
    next: list[int] = field(default_factory=list)


def tool(name: str, *arguments: str | Path) -> str:
    done = subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def usage(text: str) -> list[tuple[str, int, int, int]]:
    """Function, registers, local and shared bytes out of `cuobjdump -res-usage`."""
    pattern = r"Function (\S+?):?\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    return [
        (name, int(registers), int(stack) + int(local), int(shared))
        for name, registers, stack, shared, local in re.findall(pattern, text)
    ]


def multiplications(opcode: str) -> int:
    """Fused multiply-adds of one tensor-core instruction of a warpgroup (HGMMA) or warp (HMMA)."""
    name, *parts = opcode.split(".")
    if name == "HGMMA":
        m, n, k = map(int, parts[0].split("x"))
        return m * n * k
    sizes = {"16816": 16 * 8 * 16, "1688": 16 * 8 * 8, "1684": 16 * 8 * 4}
    return sizes.get(parts[0], 0) if name == "HMMA" else 0


def blocks(listing: str) -> list[Block]:
    """Basic blocks of one function, in the order of the listing."""
    found, labels, jumps, fresh = [Block()], {}, [], False
    for line in listing.splitlines():
        label, code = _LABEL.match(line), _LINE.search(line)
        if (label or fresh) and (found[-1].counts or fresh):
            if not fresh:
                found[-1].next.append(len(found))
            found.append(Block())
            fresh = False
        if label:
            labels[label.group(1)] = len(found) - 1
        if not code:
            continue
        guard, opcode, operands = code.groups()
        name = opcode.split(".")[0]
        here = found[-1]
        here.counts["all"] += 1
        here.counts[_CLASS.get(name, "other")] += 1
        here.counts["multiplications"] += multiplications(opcode)
        here.counts["waits"] += name == "BAR"
        here.counts["drains"] += opcode.startswith("WARPGROUP.DEPBAR")
        if name in ("BRA", "EXIT", "RET"):
            fresh = True
            if name == "BRA":
                jumps.append((len(found) - 1, re.search(r"`?\((\S+?)\)", operands).group(1)))
            if guard or "UP" in operands.split("`")[0]:
                here.next.append(len(found))
    for block, label in jumps:
        if label in labels:
            found[block].next.append(labels[label])
    for block in found:
        block.next = [n for n in block.next if n < len(found)]
    return found


def _postorder(first: int, steps: Callable[[int], list[int]]) -> list[int]:
    """Every node after those it leads to; without recursion, for there are thousands."""
    order, seen, stack = [], {first}, [(first, iter(steps(first)))]
    while stack:
        node, following = stack[-1]
        new = next((n for n in following if n not in seen), None)
        if new is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(new)
            stack.append((new, iter(steps(new))))
    return order


class Code:
    """The control flow of one function."""

    def __init__(self, listing: str) -> None:
        self.blocks = blocks(listing)
        self.warpgroups = "HGMMA" in listing  # one instruction serves four warps

    @cached_property
    def total(self) -> Counter:
        """Every instruction of the listing, run or not."""
        return sum((block.counts for block in self.blocks), Counter())

    @cached_property
    def _back_edges(self) -> set[tuple[int, int]]:
        edges, state, stack = set(), {}, [(0, iter(self.blocks[0].next))]
        state[0] = "open"
        while stack:
            block, following = stack[-1]
            step = next(following, None)
            if step is None:
                state[block] = "done"
                stack.pop()
            elif state.get(step) == "open":
                edges.add((block, step))
            elif step not in state:
                state[step] = "open"
                stack.append((step, iter(self.blocks[step].next)))
        return edges

    @cached_property
    def loops(self) -> dict[int, set[int]]:
        """Blocks of every natural loop, by its first."""
        before: dict[int, list[int]] = {}
        for i, block in enumerate(self.blocks):
            for step in block.next:
                before.setdefault(step, []).append(i)
        found: dict[int, set[int]] = {}
        for tail, head in self._back_edges:
            inside = found.setdefault(head, {head})
            todo = [tail]
            while todo:
                block = todo.pop()
                if block not in inside:
                    inside.add(block)
                    todo += before.get(block, [])
        return found

    def _multiplies(self, inside: set[int]) -> bool:
        return any(self.blocks[i].counts["multiplications"] for i in inside)

    def _path(self, first: int, inside: set[int], trips: dict[int, float]) -> Counter:
        """The plain path from `first` to an exit or a back edge, inner loops `trips` times."""
        inner = {h: b for h, b in self.loops.items() if h in inside and h != first and b < inside}
        # Of nested loops the outermost is passed as one node.
        inner = {h: b for h, b in inner.items() if not any(b < c for c in inner.values())}
        best: dict[int, tuple[tuple[float, float], Counter]] = {}

        @cache
        def node(i: int) -> tuple[Counter, list[int]]:
            if i not in inner:
                return self.blocks[i].counts, self.blocks[i].next
            once = self._path(i, inner[i], trips)
            times = trips.get(i, 1.0)
            scaled = Counter({k: v * times for k, v in once.items()})
            leaving = [n for j in inner[i] for n in self.blocks[j].next if n not in inner[i]]
            return scaled, sorted(set(leaving))

        def passes(i: int) -> int:
            """Tensor-core work of a node, also of a loop that is not counted."""
            return sum(self.blocks[j].counts["multiplications"] for j in inner.get(i, {i}))

        def steps(i: int) -> list[int]:
            following = node(i)[1]
            onward = [n for n in following if n in inside and (i, n) not in self._back_edges]
            return [n for n in onward if n != first]

        # From the ends to the start: a block's best rest is known when it is reached.
        for i in _postorder(first, steps):
            rest = min(
                (best[n] for n in steps(i)), key=lambda x: x[0], default=((0.0, 0.0), Counter())
            )
            total = Counter(node(i)[0])
            total.update(rest[1])
            best[i] = (rest[0][0] - passes(i), total["all"]), total
        return best[first][1]

    def tile(self, logits: int, width: int, warps: int) -> "Tile":
        """What a warp runs for one tile of `logits` similarities of `width` features."""
        tensor = {h: b for h, b in self.loops.items() if self._multiplies(b)}
        if not tensor:
            return Tile(Counter(), self._path(0, set(range(len(self.blocks))), {}), 0)
        outermost = max(tensor, key=lambda h: len(tensor[h]))
        leaves = [h for h, b in tensor.items() if not any(c < b for c in tensor.values())]
        once = {h: self._path(h, tensor[h], {}) for h in leaves}
        workers = warps / 4 if self.warpgroups else warps
        whole = sum(c["multiplications"] for c in once.values()) * workers
        if whole >= 0.99 * logits * width:
            return Tile(Counter(), self._path(outermost, tensor[outermost], {}), 0)
        trips = logits * width / whole
        inside = Counter()
        for counts in once.values():
            inside.update({k: v * trips for k, v in counts.items()})
        # A loop over features alone: its program is one tile.
        region = set(range(len(self.blocks))) if outermost in leaves else tensor[outermost]
        first = 0 if outermost in leaves else outermost
        return Tile(inside, self._path(first, region, dict.fromkeys(leaves, 0.0)), len(leaves))


@dataclass
class Tile:
    """Instructions of one warp for one tile."""

    features: Counter  # in the loops over the features, which overlap with the tensor cores
    rest: Counter  # before and after, or all of it where one step takes all features
    rounds: int  # loops over features: each begins with an empty pipeline

    @property
    def all(self) -> Counter:
        return self.features + self.rest


class Compiled(NamedTuple):
    """A kernel as it would be loaded."""

    registers: int  # per thread
    spilled: int  # bytes of local memory
    shared: int  # bytes per block
    warps: int  # per block
    code: Code


def compile_kernel(kernel, signature, constants, attributes, architecture, options) -> Compiled:
    """Compile a Triton kernel ahead of time and read its machine code."""
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", architecture, 32),
        options=options,
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        ((_, registers, spilled, _),) = usage(tool("cuobjdump", "-res-usage", file.name))
        code = Code(tool("nvdisasm", "-c", file.name))
    metadata = compiled.metadata
    return Compiled(registers, spilled, metadata.shared, metadata.num_warps, code)
