"""Makes the drawings of docs/kernels.md: `python docs/drawings/draw.py`."""

from pathlib import Path

FOLDER = Path(__file__).parent
RED, BLUE, GREEN, SAND, GREY = "#c1121f", "#4a7ba6", "#5a9367", "#e0b873", "#d5d8dc"
INK, FAINT = "#1f2328", "#6c757d"


def text(x: float, y: float, words: str, anchor: str = "middle", colour: str = INK) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def box(x: float, y: float, w: float, h: float, colour: str, words: str = "") -> str:
    shape = f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" fill="{colour}"/>'
    on = "#ffffff" if colour in (RED, BLUE, GREEN) else INK
    return shape + (text(x + w / 2, y + h / 2 + 5, words, colour=on) if words else "")


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    line = f'x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}"'
    return f'<line {line} stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"/>'


def svg(width: int, height: int, parts: list[str], title: str) -> str:
    """On white, so that it can be read on dark pages too."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="14">',
            f"<title>{title}</title><defs>{head}</defs>",
            f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def one_pass() -> str:
    """A tile on its way from rows to sums, and back to gradients."""
    parts = []
    for x, words in ((20, "forward"), (440, "backward")):
        parts.append(text(x, 28, words, "start", FAINT))
        parts += [box(x, 140, 50, 110, BLUE, "q"), box(x + 100, 40, 140, 50, GREEN, "k")]
        parts += [box(x + 100, 140, 140, 110, SAND)]
        parts += [arrow(x + 52, 195, x + 96, 195), arrow(x + 170, 92, x + 170, 136)]
        parts += [arrow(x + 242, 195, x + 276, 195), arrow(x + 170, 252, x + 170, 286)]
    parts += [text(190, 188, "s = q kᵀ"), text(190, 212, "e = 2^(s - shift)")]
    parts += [box(300, 140, 26, 110, RED), text(313, 130, "row sums")]
    parts += [box(120, 290, 140, 26, RED), text(190, 336, "column sums")]
    parts += [text(340, 290, "→ lse, loss", "middle", RED)]
    parts += [text(610, 182, "s once more, then"), text(610, 206, "w = e (a + b) - y")]
    parts += [box(720, 140, 50, 110, BLUE, "dq"), text(745, 130, "+= w k")]
    parts += [box(540, 290, 140, 50, GREEN, "dk"), text(610, 362, "+= wᵀ q")]
    return svg(800, 380, parts, "One tile: forward it becomes sums, backward gradients")


def triangle(blocks: int = 6, side: int = 40) -> str:
    """Which tiles of z z^T are formed, and whom one of them serves."""
    parts, left, top = [], 90, 60
    for i in range(blocks):
        for j in range(blocks):
            colour = BLUE if i < j else SAND if i == j else GREY
            colour = RED if (i, j) == (1, 4) else colour
            parts.append(box(left + j * side, top + i * side, side - 3, side - 3, colour))
    right, bottom = left + blocks * side, top + blocks * side
    row, column = top + side * 1.5, left + side * 4.5
    parts += [box(left - side - 14, row - side / 2, side, side - 3, GREEN, "I")]
    parts += [box(column - side / 2, top - side - 6, side - 3, side, GREEN, "J")]
    parts += [arrow(right + 4, row, right + 26, row), text(right + 32, row + 5, "I", "start")]
    parts += [arrow(column, bottom + 4, column, bottom + 26), text(column, bottom + 42, "J")]
    words = right + 70
    parts += [text(words, top + 24, "A tile (I, J) is formed once.", "start")]
    parts += [text(words, top + 50, "Its rows add to the sums of I,", "start")]
    parts += [text(words, top + 74, "its columns to the sums of J;", "start")]
    parts += [text(words, top + 100, "backward it moves dz of both.", "start")]
    parts += [text(words, top + 140, "Grey tiles are never formed.", "start", FAINT)]
    parts += [text(words, top + 164, "On the diagonal none is with itself.", "start", FAINT)]
    return svg(words + 260, bottom + 54, parts, "Rows among themselves: half of the tiles")


def rounds(blocks: int = 4, side: int = 56) -> str:
    """Tiles that run at the same time share no rows and no columns."""
    colours = RED, BLUE, GREEN, SAND
    parts = []
    for i in range(blocks):
        for j in range(blocks):
            number = (j - i) % blocks
            x, y = 90 + j * side, 50 + i * side
            parts.append(box(x, y, side - 4, side - 4, colours[number], f"{number + 1}"))
        parts += [text(78, 80 + i * side, f"rows {i + 1}", "end", FAINT)]
        parts += [text(116 + i * side, 40, f"cols {i + 1}", colour=FAINT)]
    words = 110 + blocks * side
    lines = (
        "Round 1 to 4: the tiles of a round",
        "share no rows and no columns, so",
        "all sums are made in place, in the",
    )
    lines += "same order for any number of", "threads: no atomics, the same bits."
    parts += [text(words, 84 + 26 * i, line, "start") for i, line in enumerate(lines)]
    return svg(words + 270, 70 + blocks * side, parts, "The order of tiles: a Latin square")


def products() -> str:
    """Similarity-sized products of a loss with its gradients."""
    cases = (
        ("MoCo: columns are constants", 2, "the forward finishes dq"),
        ("NT-Xent, SupCon: half of the tiles", 2, "0.5 + 0.5 again + 1; 1.5 where tiles are kept"),
        ("SigLIP: no sum to wait for", 3, "1 + dq + dk"),
        ("InfoNCE: chunks of rows, kept", 3, "a row is done once it has seen all columns"),
        ("CLIP: both directions", 4, "1 + 1 again + dq + dk; 3 where tiles are kept"),
        ("plain PyTorch, for any", 3, "and the matrix written and read many times"),
    )
    parts = [text(20, 30, "products of n x m x d, forward and backward", "start", FAINT)]
    for i, (name, count, why) in enumerate(cases):
        y, colour = 48 + 46 * i, GREY if name.startswith("plain") else RED
        parts.append(text(270, y + 20, name, "end"))
        parts += [box(285 + 52 * k, y, 48, 30, colour) for k in range(count)]
        parts.append(text(295 + 52 * count, y + 20, why, "start", FAINT))
    return svg(830, 335, parts, "How many products a loss takes")


DRAWINGS = {"pass": one_pass, "triangle": triangle, "rounds": rounds, "products": products}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw())
