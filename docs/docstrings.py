"""Docstrings as this project writes them, for Sphinx."""

import re

OPENINGS = re.compile(r"^(Equal to|Sources?:|Args, Returns, Raises:)")
# A name that ends in an underscore is no reference, outside of code.
IN_PLACE = re.compile(r"(?<![`\w])(\w*[a-z]_)(?![\w`])")
FUNCTION = re.compile(r"(?<!`)`functional\.(\w+)`")


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """Bold openings of paragraphs, formulas that stand alone as they are, names as links."""
    if lines and lines[0].startswith("Alias for field number"):  # of a NamedTuple, by Python
        lines.clear()
    made: list[str] = []
    for line in lines:
        formula = line.startswith("    ") and made and not made[-1] and _is_text(made)
        if formula:
            made += ["::", ""]
        line = OPENINGS.sub(r"**\1**", line)
        line = FUNCTION.sub(r"`fastcl.functional.\1`", line)
        made.append(line if line.startswith(" ") else IN_PLACE.sub(r"``\1``", line))
    lines[:] = made


def signature(app, what, name, obj, options, arguments: str | None, returns: str | None):
    """A module of torch without arguments of its own has none, and not any."""
    if what == "class" and arguments == "(*args: Any, **kwargs: Any)":
        return "()", returns
    return None


def _is_text(lines: list[str]) -> bool:
    """The last line with anything on it is flush, and opens neither a list nor a section."""
    last = next((line for line in reversed(lines) if line), " ")
    return not last.startswith((" ", "- ", "* ")) and not last.endswith(":")
