"""The readers by atheris, which keeps what reaches new lines: ``make fuzz-files SECONDS=60``.

The first byte is the number of a reader. Whole files of every kind are where it begins; a file that
is read wrongly is kept in build/.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastcl.data", "fastcl.pretrain", "fastcl.views"]):
    from fuzz import files

SUFFIXES = sorted(files.READERS)


def one(content: bytes) -> None:
    if content:
        files.read(SUFFIXES[content[0] % len(SUFFIXES)], content[1:])


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for number, suffix in enumerate(SUFFIXES):
            for i, content in enumerate(files.whole()[suffix]):
                (Path(folder) / f"{i}{suffix}").write_bytes(bytes([number]) + content)
        kept = Path(__file__).resolve().parents[2] / "build"
        options = f"-artifact_prefix={kept}/", "-max_len=8192", "-rss_limit_mb=6000"
        atheris.Setup([*sys.argv, folder, *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
