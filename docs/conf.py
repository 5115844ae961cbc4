"""The site: every Markdown page of the repository by Sphinx, `make docs`.

The source folder is the repository, so that links between README, docs/ and the tables in
benchmarks/results/ are the same files on the site and where the source is read.
"""

import re
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import docstrings  # noqa: E402

import fastcl  # noqa: E402

project, author, copyright = "fastcl", "the authors of fastcl", "the authors of fastcl, Apache-2.0"
release = version = fastcl.__version__
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]  # fmt: skip
root_doc = "docs/index"
include_patterns = ["docs/**.md", "benchmarks/results/*.md", "*.md"]
# What is shown by another page, and what only its own readers look for.
exclude_patterns = [
    ".*", "build", "csrc", "dist", "examples", "fastcl", "runs", "tests", "wheels", "README.md",
    *(f"benchmarks/results/{name}.md" for name in ("cpu", "digits", "scaling", "views")),
]  # fmt: skip

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Formulas in backticks are no names to look up; names are found all the same.
default_role = "py:obj"
add_module_names = False
highlight_language = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "imported-members": True}
# torch.nn.Module's words about forward would stand under every class that has none of its own.
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Their originals are subclassed, and need not be there.
autodoc_mock_imports = ["pylate", "pytorch_metric_learning", "sentence_transformers"]
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"fastcl {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path = ["_templates"]
html_additional_pages = {"index": "first.html"}
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#9d0f1b", "color-brand-content": "#9d0f1b"},
    "dark_css_variables": {"color-brand-primary": "#ff8f8f", "color-brand-content": "#ff8f8f"},
}

INVENTORY = "# Sphinx inventory version 2\n# Project: {0}\n# Version: \n# zlib\n"


def _inventory(name: str) -> str:
    """docs/inventories/NAME.txt as Sphinx reads it: without a network, and never another one."""
    target = ROOT / "build" / "inventories" / f"{name}.inv"
    target.parent.mkdir(parents=True, exist_ok=True)
    names = (ROOT / "docs" / "inventories" / f"{name}.txt").read_bytes()
    target.write_bytes(INVENTORY.format(name).encode() + zlib.compress(names))
    return str(target)


intersphinx_mapping = {
    "torch": ("https://docs.pytorch.org/docs/stable", _inventory("torch")),
    "numpy": ("https://numpy.org/doc/stable", _inventory("numpy")),
    "python": ("https://docs.python.org/3", _inventory("python")),
}


def _whole(text: str) -> str:
    """No line break between a figure of a table and its unit."""
    rows = re.compile(r"^\|.*\|$", re.MULTILINE)
    units = r"(?:ms|us|s|[KMGT]?B|[MGT]FLOP/s|[MG]B/s)\b"
    pair = re.compile(rf"(?<=\d) (?={units}|x \d)|(?<=\d x) (?=\d)")
    return rows.sub(lambda row: pair.sub("\N{NO-BREAK SPACE}", row[0]), text)


def _start_page(app, path, parent, text) -> None:
    """The README is the start page, and its links are those of its own folder."""
    if path.name == "README.md":
        text[0] = _whole(re.sub(r"\]\((?!https?:|#)", "](../", text[0]))


def _page(app, docname, text) -> None:
    """Figures with their units; a table of results has no heading: its name."""
    text[0] = _whole(text[0])
    if docname.startswith("benchmarks/results/") and not text[0].startswith("# "):
        text[0] = f"---\norphan: true\n---\n\n# Rows: {Path(docname).name}\n\n{text[0]}"


def setup(app) -> None:
    app.connect("include-read", _start_page)
    app.connect("source-read", _page)
    app.connect("autodoc-process-docstring", docstrings.process, priority=100)
    app.connect("autodoc-process-signature", docstrings.signature)
