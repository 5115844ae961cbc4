"""Every public loss of the libraries that fastcl.compat knows: replaced, as it is, or not, and why.

What is replaced is read from `fastcl.compat`, its figures from results/migration.csv; the others
have their reason in `compat_reasons.py`. `python -m benchmarks.migration --show` writes the table
into docs/migration.md, and a test compares both with the installed libraries.
"""

import ast

from fastcl.compat._patch import LIBRARIES

from . import report, tables
from .compat_reasons import AS_IT_IS, NOT

Row = dict[str, str]
LIBRARY = [*LIBRARIES, "supcontrast"]


def offered(library: str) -> list[str]:
    """The names of `fastcl.compat.<library>`, which may need the library to be imported."""
    path = report.ROOT / "fastcl" / "compat" / f"{library}.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} has no __all__")


def is_loss(name: str) -> bool:
    return "loss" in name.lower() or "nce" in name.lower() or name == "CrossBatchMemory"


def patched(library: str) -> set[str]:
    """What `fastcl.patch` replaces."""
    if library == "supcontrast":
        return {"SupConLoss"}
    return {
        path.split(".")[-1] for path in LIBRARIES[library].names if is_loss(path.split(".")[-1])
    }


def imported_only(library: str) -> set[str]:
    """What there is by import and not by patch, of the same formula and speed as the library's."""
    others = set(AS_IT_IS.get(library, {})) | set(NOT.get(library, {}))
    return {x for x in offered(library) if is_loss(x)} - patched(library) - others


def figures(library: str, name: str, rows: list[Row]) -> str:
    """How many times as fast, and the memory of both, from the rows of the first size measured."""
    for original, ours in zip(rows[::2], rows[1::2], strict=True):
        named = original["name"].split(", ")
        if original["library"] == library and name in named and original["median_ms"]:
            ratio = float(original["median_ms"]) / float(ours["median_ms"])
            before, after = (f"{float(x['extra_mb']):,.3g} MB" for x in (original, ours))
            return f"{ratio:.1f}x at {original['size']}; {before}, now {after}"
    return "its figures are to be measured"


def lines(library: str, rows: list[Row]) -> list[list[str]]:
    """Names, standing and reason, names of one reason together."""
    found = [[f"`{x}`", "replaced", figures(library, x, rows)] for x in sorted(patched(library))]
    some = sorted(imported_only(library))
    if some:
        names = ", ".join(f"`{x}`" for x in some)
        found.append([names, "by import", "not by `patch`: signatures or versions differ, or "
                      "nothing is gained"])  # fmt: skip
    for standing, reasons in (("works as it is", AS_IT_IS), ("not", NOT)):
        groups: dict[str, list[str]] = {}
        for name, reason in reasons.get(library, {}).items():
            groups.setdefault(reason, []).append(name)
        for reason, names in groups.items():
            found.append([", ".join(f"`{x}`" for x in sorted(names)), standing, reason])
    return found


def text(rows: list[Row]) -> str:
    """The section of docs/migration.md."""
    body = [[library, *line] for library in LIBRARY for line in lines(library, rows)]
    return tables.grid(["library", "loss", "fastcl", "why"], body) + "\n"
