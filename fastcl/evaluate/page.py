"""A run as one HTML file: no script, no link, no file beside it."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import matplotlib
from matplotlib.figure import Figure

# Drawn in this near-black, which the page replaces with the colour of its text.
INK = "#010203"
STYLE = {
    name: INK
    for name in (
        "text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color",
        "ytick.color", "legend.labelcolor",
    )
}  # fmt: skip
STYLE |= {"svg.fonttype": "none", "svg.hashsalt": "fastcl", "axes.titlesize": "medium"}

CSS = """
:root { color-scheme: light dark; --ground: #f6f6f4; --card: #fff; --ink: #1d1f21;
  --faint: #6a6f75; --line: #e2e2de; --accent: #14796b; --bad: #b3401a; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171a; --card: #1e2125; --ink: #e8e8e6;
  --faint: #9aa0a6; --line: #33373d; --accent: #4cc9b0; --bad: #ff9166; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 0 0 4px; }
p { margin: 4px 0 12px; max-width: 76ch; }
.faint, figcaption, .note { color: var(--faint); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 22px; margin-top: 18px; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 12px;
  margin-top: 20px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; }
.tile b { display: block; font-size: 25px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: 13px; }
.bad { color: var(--bad); } .good { color: var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; white-space: nowrap; }
thead th { color: var(--faint); font-size: 13px; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.best { font-weight: 700; color: var(--accent); }
td.note { font-size: 13px; min-width: 300px; }
figure { margin: 10px 0 0; }
figure svg, figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figure svg image { image-rendering: pixelated; }
figure svg text { font-family: system-ui, -apple-system, "DejaVu Sans", sans-serif !important; }
.settings { columns: 3 230px; column-gap: 32px; font-size: 14px; }
.settings div { display: flex; justify-content: space-between; gap: 14px; break-inside: avoid;
  border-bottom: 1px solid var(--line); padding: 4px 0; }
.settings dt { color: var(--faint); } .settings dd { margin: 0; overflow-wrap: anywhere;
  text-align: right; }
ul { margin: 4px 0; padding-left: 20px; }
"""


@dataclass(frozen=True)
class Page:
    """What the report shows.

    Args:
        title: Of the page.
        subtitle: One line under it.
        tiles: Figures to see first: label, value, and "good", "bad" or "".
        columns: Heads of the table's columns of figures.
        rows: Of the table: name, one text per column, index of the best or None, protocol.
        sections: Heading, paragraphs, and a picture as SVG, in order.
        settings: Name and value.
    """

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str, str]]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], int | None, str]]
    sections: Sequence[tuple[str, Sequence[str], str | None]] = field(default=())
    settings: Sequence[tuple[str, str]] = field(default=())


def svg(figure: Figure) -> str:
    """A figure as inline SVG in the colours of the page, its pictures as data URIs."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, dpi=150, metadata=nothing)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawing)  # HTML needs no names of namespaces


def render(page: Page) -> str:
    """The page as text."""
    tiles = "".join(
        f'<div class="tile"><b class="{kind}">{escape(value)}</b><span>{escape(label)}</span></div>'
        for label, value, kind in page.tiles
    )
    sections = "".join(
        _section(heading, "".join(_paragraph(p) for p in texts) + (f"<figure>{s}</figure>"
                 if s else ""))
        for heading, texts, s in page.sections
    )  # fmt: skip
    settings = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in page.settings
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{CSS}</style></head><body><main>"
        f'<header><h1>{escape(page.title)}</h1><div class="faint">{escape(page.subtitle)}</div>'
        f'</header><div class="tiles">{tiles}</div>'
        + _section("Figures and how they were taken", _table(page))
        + sections
        + _section("Settings of the run", f'<dl class="settings">{settings}</dl>')
        + "</main></body></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _paragraph(text: str | Sequence[str]) -> str:
    """A text, or a list of them."""
    if isinstance(text, str):
        return f"<p>{escape(text)}</p>"
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in text) + "</ul>"


def _table(page: Page) -> str:
    heads = "".join(f'<th class="number">{escape(name)}</th>' for name in page.columns)
    lines = []
    for name, cells, best, protocol in page.rows:
        figures = "".join(
            f'<td class="number{" best" if i == best else ""}">{escape(cell)}</td>'
            for i, cell in enumerate(cells)
        )
        note = f'<td class="note">{escape(protocol)}</td>'
        lines.append(f"<tr><th>{escape(name)}</th>{figures}{note}</tr>")
    return (
        f"<table><thead><tr><th>figure</th>{heads}<th>protocol</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
