"""Every link of the built site leads somewhere: `python docs/check_site.py build/site`.

Pages, anchors, pictures and downloads, all public names, and what a search has to find. Links to
other hosts are counted only: nothing here asks the network.
"""

import importlib
import json
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MODULES = (
    "fastcl", "fastcl.functional", "fastcl.losses", "fastcl.methods", "fastcl.pretext",
    "fastcl.distributed", "fastcl.views", "fastcl.data", "fastcl.evaluate",
)  # fmt: skip


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.update(x for x in (found.get("id"), found.get("name")) if x)
        self.links += [x for x in (found.get("href"), found.get("src")) if x]


def broken(root: Path) -> tuple[list[str], int]:
    """Links that lead nowhere, as `page: link`, and how many were followed."""
    pages = {path: Page(path) for path in root.rglob("*.html")}
    wrong, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file()
            if there and target in pages:
                there = unquote(parts.fragment) in pages[target].anchors
            if not there:
                wrong.append(f"{path.relative_to(root)}: {link}")
    return wrong, followed


def documented(root: Path) -> set[str]:
    """Names that the site has an entry for."""
    data = (root / "objects.inv").read_bytes()
    lines = zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ")[0] for line in lines if " py:" in line}


def public() -> set[str]:
    """What the modules offer; not the modules within, which have pages of their own."""
    names = set()
    for module in map(importlib.import_module, MODULES):
        found = (name for name in module.__all__ if not name.startswith("__"))
        names |= {f"{module.__name__}.{name}" for name in found} - set(MODULES)
    return names


def searched(root: Path, word: str) -> int:
    """On how many pages the index of the search has a word."""
    text = (root / "searchindex.js").read_text()
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    found = index["terms"].get(word, [])
    return len(found) if isinstance(found, list) else 1


def main() -> int:
    root = Path(sys.argv[1]).resolve()
    wrong, followed = broken(root)
    missing = sorted(public() - documented(root))
    if not followed or not searched(root, "clip"):
        wrong.append("no links, or a search that does not find clip")
    for line in (*wrong, *(f"no entry in the API: {name}" for name in missing)):
        print(line)
    print(f"{followed} links followed, {len(wrong)} broken, {len(missing)} names missing")
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main())
