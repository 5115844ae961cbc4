"""Every public loss of the libraries that fastcl.compat knows: replaced, as it is, or not, and why.

What is replaced is read from `fastcl.compat`, its figures from results/migration.csv; the others
have their reason in `compat_reasons.py`. `python -m benchmarks.migration --show` writes the table
into docs/migration.md, and a test compares both with the installed libraries.
"""

import ast

from fastcl.compat._libraries import LIBRARIES

from . import report, tables
from .compat_reasons import AS_IT_IS, CLOSE, NOT

Row = dict[str, str]
ST = "sentence_transformers"
# A part of the table: the library in fastcl.compat, and the modules whose losses are public.
PARTS = {
    "lightly": ("lightly", ("lightly.loss", "lightly.loss.hypersphere_loss",
                            "lightly.loss.regularizer")),
    "open_clip": ("open_clip", ("open_clip.loss",)),
    "pytorch_metric_learning": ("pytorch_metric_learning", ("pytorch_metric_learning.losses",)),
    "info_nce": ("info_nce", ("info_nce",)),
    ST: (ST, (f"{ST}.sentence_transformer.losses", f"{ST}.sparse_encoder.losses")),
    f"{ST}, cross-encoders": (ST, (f"{ST}.cross_encoder.losses",)),
    f"{ST}, multi-vector": (ST, (f"{ST}.multi_vector_encoder.losses",)),
    "pylate": ("pylate", ("pylate.losses",)),
    "solo": ("solo", ("solo.losses",)),
    "supcontrast": ("supcontrast", ()),
}  # fmt: skip
# Losses that are not called so.
OTHER_NAMES = (
    "CO2Regularizer", "CachedContrastive", "Contrastive", "CrossBatchMemory", "DSERegularizer",
    "Distillation", "InfoNCE", "NegativeCosineSimilarity", "SIGReg", "info_nce",
)  # fmt: skip


def offered(library: str) -> list[str]:
    """The names of `fastcl.compat.<library>`, which may need the library to be imported."""
    path = report.ROOT / "fastcl" / "compat" / f"{library}.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} has no __all__")


def is_loss(name: str) -> bool:
    return "loss" in name.lower() or name in OTHER_NAMES


def patched(part: str) -> set[str]:
    """What `fastcl.patch` replaces."""
    library, homes = PARTS[part]
    if library == "supcontrast":
        return {"SupConLoss"}
    paths = (f"{library}.{path}" for path in LIBRARIES[library].names)
    names = (p.split(".")[-1] for p in paths if p.startswith(tuple(f"{h}." for h in homes)))
    return {name for name in names if is_loss(name)}


def imported_only(part: str) -> set[str]:
    """What there is by import and not by patch."""
    if part != PARTS[part][0]:
        return set()
    elsewhere = (patched(other) for other, (library, _) in PARTS.items() if library == part)
    return {x for x in offered(part) if is_loss(x)}.difference(*elsewhere)


def _megabytes(x: float) -> str:
    return f"{x:,.0f} MB" if x >= 10 else f"{x:.1f} MB"


def figures(library: str, name: str, rows: list[Row]) -> str:
    """How many times as fast, and the memory of both, from the rows of the first size measured;
    with the reason where it is neither 1.3 times as fast nor has a tenth of the memory."""
    for original, ours in zip(rows[::2], rows[1::2], strict=True):
        named = original["name"].split(", ")
        if original["library"] == library and name in named and original["median_ms"]:
            ratio = float(original["median_ms"]) / float(ours["median_ms"])
            before, after = (float(x["extra_mb"]) for x in (original, ours))
            close = round(ratio, 1) < 1.3 and after > before / 10
            reason = f": {CLOSE[library][name]}" if close else ""
            return (
                f"{ratio:.1f}x at {original['size']}; {_megabytes(before)}, now "
                f"{_megabytes(after)}{reason}"
            )
    return "its figures are to be measured"


def lines(part: str, rows: list[Row]) -> list[list[str]]:
    """Names, standing and reason, names of one reason together."""
    library = PARTS[part][0]
    found = [[f"`{x}`", "replaced", figures(library, x, rows)] for x in sorted(patched(part))]
    some = sorted(imported_only(part))
    if some:
        names = ", ".join(f"`{x}`" for x in some)
        found.append([names, "by import", "not in the library's version, or as fast there"])
    for standing, reasons in (("works as it is", AS_IT_IS), ("not", NOT)):
        groups: dict[str, list[str]] = {}
        for name, reason in reasons.get(part, {}).items():
            groups.setdefault(reason, []).append(name)
        for reason, names in groups.items():
            found.append([", ".join(f"`{x}`" for x in sorted(names)), standing, reason])
    return found


def text(rows: list[Row]) -> str:
    """The section of docs/migration.md."""
    body = [[part, *line] for part in PARTS for line in lines(part, rows)]
    return tables.grid(["library", "loss", "fastcl", "why"], body) + "\n"
