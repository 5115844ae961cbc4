"""The built site in a browser: `python docs/browse_site.py build/site build/screenshots`.

Chromium (Debian: `apt-get install chromium`) takes a picture of every page at the width of a desk
and of a phone, to be looked at, and types into the search, whose results must hold what is asked.
"""

import functools
import html
import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

WIDTHS = {"desk": (1400, 2400), "phone": (390, 2400)}
# A word, and the page and entry that it has to lead to.
SEARCHES = {
    "clip": "docs/api/functional.html#fastcl.functional.clip",
    "nt_xent": "docs/api/functional.html#fastcl.functional.nt_xent",
    "checkpoint": "docs/guarantees.html",
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


def chromium(*options: str) -> str:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("needs chromium: apt-get install chromium")
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    done.check_returncode()
    return done.stdout


def found(address: str, word: str) -> set[str]:
    """Where the results of a search lead."""
    query = f"{address}/search.html?q={word}"
    text = chromium("--virtual-time-budget=10000", "--dump-dom", query)
    results = text.partition('id="search-results"')[2]
    return {html.unescape(link) for link in re.findall(r'<a href="([^"?]+)[?"]', results)}


def pictures(address: str, site: Path, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    pages = sorted(site.glob("docs/**/*.html"))
    for page in pages:
        name = page.relative_to(site / "docs").with_suffix("").as_posix().replace("/", "-")
        for width, (w, h) in WIDTHS.items():
            chromium(
                f"--window-size={w},{h}", f"--screenshot={folder / f'{name}-{width}.png'}",
                f"{address}/{page.relative_to(site).as_posix()}",
            )  # fmt: skip
    return len(pages)


def main() -> int:
    site, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    missing = [
        f"{word}: {page}" for word, page in SEARCHES.items() if page not in found(address, word)
    ]
    print(*missing, f"{len(SEARCHES)} searches, {len(missing)} failed", sep="\n")
    print(f"{pictures(address, site, folder)} pages in {len(WIDTHS)} widths: {folder}")
    server.shutdown()
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
